"""Values of token sequences that grow: what they begin with goes through the model once, and is kept where it fits.

Beginnings are a tree of token ids. Each stretch of it keeps attention's keys and values, so that what continues it is
computed alone, and the value after each of its tokens.
"""

from collections.abc import Iterator, Sequence
from itertools import takewhile

import torch
from torch import Tensor, nn

from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.sequences import KeysAndValues, Pack, Segment, unscored_pack

__all__ = ("GrowingValues", "weights_state")


class _Stretch:
    """Tokens that follow those of another stretch."""

    def __init__(self, tokens: tuple[int, ...], before: "_Stretch | None") -> None:
        self.tokens, self.before = tokens, before
        self.after: dict[int, _Stretch] = {}  # by the first token
        #: When it was last asked for.
        self.asked = 0
        #: After each token, once it has been through the model.
        self.values: Tensor | None = None
        #: For each call of attention, ``(1, heads, tokens, width)``.
        self.attention: list[tuple[Tensor, Tensor]] = []

    def chain(self) -> list["_Stretch"]:
        """Return the stretches from the first token of a sequence to the end of this one."""
        chain, last = [self], self
        while last.before is not None and last.before.tokens:
            last = last.before
            chain.append(last)
        return chain[::-1]

    def all_after(self) -> Iterator["_Stretch"]:
        """Yield all that continue it, each after what it continues."""
        waiting = [*self.after.values()]
        while waiting:
            stretch = waiting.pop()
            yield stretch
            waiting += stretch.after.values()

    def cut(self, n: int) -> "_Stretch":
        """Make its first n tokens a stretch of their own, and return that; this one continues it."""
        assert self.before is not None
        first = _Stretch(self.tokens[:n], self.before)
        if self.values is not None:
            first.values, self.values = self.values[:n], self.values[n:]
            first.attention = [(k[:, :, :n].clone(), v[:, :, :n].clone()) for k, v in self.attention]
            self.attention = [(k[:, :, n:].clone(), v[:, :, n:].clone()) for k, v in self.attention]
        self.before.after[self.tokens[0]] = first
        self.before, self.tokens = first, self.tokens[n:]
        first.after[self.tokens[0]] = self
        return first


class GrowingValues:
    """Predicts the value after every token of sequences, of which each token goes through the model once while kept."""

    def __init__(self, model: LanguageModel, head: nn.Module, max_tokens_per_pack: int, max_bytes: float) -> None:
        """Initialize with nothing kept.

        Args:
            model: Model of the sequences; where its weights change or move, nothing of before is used.
            head: From its hidden states to the logit of a value, such as `ValueHead`.
            max_tokens_per_pack: Most tokens that are put through the model at once.
            max_bytes: Most memory for keys and values between forward passes; what was asked for least recently is
                dropped first, and computed again when it is needed.
        """
        self.model, self.head = model, head
        self.max_tokens_per_pack, self.max_bytes = max_tokens_per_pack, max_bytes
        #: Tokens that were put through the model so far.
        self.n_tokens = 0
        #: Of no tokens itself: all sequences continue it.
        self.root = _Stretch((), None)
        self._clock, self._bytes_per_token = 0, 0
        self._weights = weights_state(model, head)

    def forget(self) -> None:
        """Free all that is kept."""
        for stretch in list(self.root.all_after()):
            stretch.before = None  # else they would hold each other until Python looks for circles
        self.root, self._weights = _Stretch((), None), weights_state(self.model, self.head)

    @property
    def n_bytes(self) -> int:
        """What the keys and values that are kept take."""
        return self._bytes_per_token * sum(len(s.tokens) for s in self.root.all_after() if s.attention)

    @torch.inference_mode()
    def __call__(self, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return the value after each token of each sequence, ``(tokens,)``, in [0, 1].

        Args:
            sequences: Token ids, at least one each; of lengths that the model `can_continue`.
        """
        if self._weights != weights_state(self.model, self.head):
            self.forget()
        found: list[Tensor] = []
        ends: list[_Stretch] = []
        n_waiting = 0
        for sequence in sequences:
            end, n_new = self._add(tuple(sequence))
            if ends and n_waiting + n_new > self.max_tokens_per_pack:
                found += self._values_at(ends)
                ends, n_waiting = [], 0
            ends.append(end)
            n_waiting += n_new
        return [*found, *(self._values_at(ends) if ends else [])]

    def _add(self, tokens: tuple[int, ...]) -> tuple[_Stretch, int]:
        """Return the stretch at the end of a sequence, and how many tokens it adds to the tree."""
        self._clock += 1
        last, n = self.root, 0
        while n < len(tokens):
            known = last.after.get(tokens[n])
            if known is None:
                known = last.after[tokens[n]] = _Stretch(tokens[n:], last)
                known.asked = self._clock
                return known, len(tokens) - n
            rest = tokens[n : n + len(known.tokens)]
            n_common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(rest, known.tokens, strict=False)))
            last = known if n_common == len(known.tokens) else known.cut(n_common)
            last.asked = self._clock
            n += n_common
        return last, 0

    def _values_at(self, ends: Sequence[_Stretch]) -> list[Tensor]:
        """Return the values after the tokens of sequences that end so."""
        chains = [end.chain() for end in ends]
        stretches = list(dict.fromkeys(s for chain in chains for s in chain))
        if any(s.values is None for s in stretches):
            self._compute(stretches)
        found = [torch.cat([s.values for s in chain if s.values is not None]) for chain in chains]
        self._drop()
        return found

    def _compute(self, stretches: Sequence[_Stretch]) -> None:
        """Put those through the model that have not been; each comes after what it continues."""
        new = [s for s in stretches if s.values is None]
        kept = [s for s in stretches if s.values is not None]
        lengths = [len(s.tokens) for s in new]
        memory = KeysAndValues([s.attention for s in kept], lengths)
        hidden = self.model.hidden_states(_pack_of([*kept, *new]).to(self.model.device), memory)
        values = self.head(hidden).sigmoid().float().cpu()
        for s, own, attention in zip(new, values.split(lengths), memory.new, strict=True):
            s.values, s.attention = own, attention
        self._bytes_per_token = sum(x.nbytes for pair in new[0].attention for x in pair) // lengths[0]
        self.n_tokens += sum(lengths)

    def _drop(self) -> None:
        """Drop what was asked for least recently until the rest fits, the ends of sequences before their beginnings."""
        n_bytes = self.n_bytes
        if n_bytes <= self.max_bytes:
            return
        stretches = [*self.root.all_after()][::-1]
        for s in sorted(stretches, key=lambda s: s.asked):
            assert s.before is not None
            del s.before.after[s.tokens[0]]
            n_bytes -= self._bytes_per_token * len(s.tokens) if s.attention else 0
            if n_bytes <= self.max_bytes:
                return


def weights_state(*modules: nn.Module) -> list[object]:
    """Return what changes when the weights of modules do, or where they are."""
    parameters = [p for module in modules for p in module.parameters()]
    return [(p.data_ptr(), 0 if p.is_inference() else p._version, p.device, p.dtype) for p in parameters]


def _pack_of(stretches: Sequence[_Stretch]) -> Pack:
    """Return a pack of stretches, each after what it continues; nothing of it is scored."""
    numbers = {s: i for i, s in enumerate(stretches)}
    segments: list[Segment] = []
    tokens: list[int] = []
    positions: list[int] = []
    for s in stretches:
        prefix = numbers.get(s.before) if s.before is not None else None
        first = 0 if prefix is None else positions[segments[prefix].start + segments[prefix].length - 1] + 1
        segments.append(Segment(len(tokens), len(s.tokens), prefix))
        tokens += s.tokens
        positions += range(first, first + len(s.tokens))
    return unscored_pack(tokens, positions, segments)
