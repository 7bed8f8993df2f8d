"""Packing: many sequences in one row of tokens, no padding, a shared prompt only once.

A pack is a row of segments. Each token attends to its own segment up to itself and to the whole of the segments
before it in its chain of prefixes; nothing attends across chains. Completions of one prompt share its segment, so a
group of G completions costs ``prompt + G * completion`` tokens instead of ``G * (prompt + completion)``, with the same
log-probabilities and gradients. What completions of one prompt begin with and none of their scored tokens is part of,
such as a prefix that several continue, is shared in the same way; so is what the two of a preference pair begin with,
scored or not. A sequence's last token is only ever predicted, so it is not put through the model, unless something
reads its hidden state, such as a value head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ("Pack", "PromptCompletion", "Segment", "empty_pack", "pack_sequences", "unscored_pack")


class PromptCompletion(NamedTuple):
    """A sequence of which the completion's tokens are scored."""

    prompt: Sequence[int]  # token ids, at least one
    completion: Sequence[int]  # token ids
    mask: Sequence[bool] | None = None  # which of the completion's tokens are scored; all by default


class Segment(NamedTuple):
    """A stretch of a pack's tokens."""

    start: int  # first token in the pack
    length: int  # tokens
    prefix: int | None  # the segment that this one continues, by its number in the pack


@dataclass(frozen=True)
class Pack:
    """Sequences that are run through the model together."""

    tokens: Tensor  # token ids, (tokens,)
    positions: Tensor  # position within its sequence, (tokens,)
    segments: tuple[Segment, ...]
    predictors: Tensor  # the pack's token whose hidden state predicts the scored one, (scored,)
    scored: Tensor  # the scored one itself among the pack's tokens, (scored,); with ``keep_last`` only
    targets: Tensor  # id of the scored token, (scored,)
    sequences: Tensor  # number of the sequence that a scored token belongs to, (scored,)
    completion_positions: Tensor  # its position in that sequence's completion, (scored,)
    keep_last: bool = False  # whether every scored token is put through the model

    def to(self, device: torch.device) -> "Pack":
        """Return the pack with its tensors on a device."""
        names = ("tokens", "positions", "predictors", "scored", "targets", "sequences", "completion_positions")
        return replace(self, **{n: getattr(self, n).to(device) for n in names})

    @property
    def longest(self) -> int:
        """Most tokens that one sequence puts through the model."""
        lengths: list[int] = []
        for segment in self.segments:
            before = 0 if segment.prefix is None else lengths[segment.prefix]
            lengths.append(before + segment.length)
        return max(lengths, default=0)

    def gather(self, values: Sequence[Tensor]) -> Tensor:
        """Line up one value per completion token, given per sequence, with the scored tokens.

        Args:
            values: For every sequence that was packed, in its order, a tensor ``(completion,)``.

        Returns:
            ``(scored,)``, on the pack's device.
        """
        device = self.completion_positions.device
        lengths = torch.tensor([0, *(len(v) for v in values)], device=device)
        flat = torch.cat(list(values)).to(device)
        return flat[lengths.cumsum(0)[self.sequences] + self.completion_positions]

    def at_predictors(self, values: Tensor) -> Tensor:
        """Return what is known before each scored token.

        Args:
            values: One row per token of the pack, such as its hidden states, ``(tokens, ...)``.

        Returns:
            ``(scored, ...)``.
        """
        return values[self.predictors]

    def at_scored(self, values: Tensor) -> Tensor:
        """Return what is known after each scored token; arguments and result are as in `at_predictors`.

        Raises:
            ValueError: If a sequence's last token was not put through the model.
        """
        if not self.keep_last:
            raise ValueError("the pack does not hold its sequences' last tokens: pack_sequences(..., keep_last=True).")
        return values[self.scored]


def unscored_pack(tokens: Sequence[int], positions: Sequence[int], segments: Sequence[Segment]) -> Pack:
    """Return a pack of which nothing is scored; arguments are as the pack's attributes."""
    none = torch.zeros(0, dtype=torch.long)
    return Pack(_tensor(tokens), _tensor(positions), tuple(segments), none, none, none, none, none, True)


def empty_pack(token: int) -> Pack:
    """Return a pack of one token of which nothing is scored: a forward pass for a rank that has nothing of its own."""
    return unscored_pack([token], [0], [Segment(0, 1, None)])


class _Inputs(NamedTuple):
    """What of a completion is put through the model."""

    beginning: Sequence[int]  # its first tokens, which other sequences may share
    n_completion: int  # how many of its tokens, the beginning included; none where none is scored
    scored: Sequence[int]  # positions of the scored ones


class _Unit(NamedTuple):
    """A prompt with some of its completions; never split further."""

    members: tuple[int, ...]
    n_tokens: int


def pack_sequences(
    sequences: Sequence[PromptCompletion],
    max_tokens: int,
    share_prompts: bool = True,
    together: Sequence[int] | None = None,
    keep_last: bool = False,
) -> list[Pack]:
    """Pack sequences into as few rows of at most ``max_tokens`` tokens as first-fit-decreasing finds.

    Sequences with equal prompts share it where that saves tokens, and so do those whose completions begin with the same
    tokens that are not scored, or are those of a pair. One that is longer than ``max_tokens`` by itself gets a pack of
    its own. Sequences without a scored token are left out.

    Args:
        sequences: What is to be packed.
        max_tokens: Most tokens of a pack.
        share_prompts: Whether equal prompts, and what follows them unscored, are put through the model once per pack.
        together: A number per sequence; neighbours with equal numbers and prompts (the two of a preference pair) come
            into the same pack, and what they begin with is put through the model once.
        keep_last: Whether the last scored token of a sequence is put through the model too, so that its hidden state
            can be read.

    Returns:
        The packs; their ``sequences`` number into the argument.

    Raises:
        ValueError: If a prompt is empty, or a mask's length differs from its completion's.
    """
    for i, s in enumerate(sequences):
        if len(s.prompt) == 0:
            raise ValueError(f"sequence {i} has an empty prompt: nothing predicts its first token.")
        if s.mask is not None and len(s.mask) != len(s.completion):
            raise ValueError(f"sequence {i} has {len(s.completion)} completion tokens but {len(s.mask)} mask values.")
    inputs = [_inputs_of(s, keep_last) for s in sequences]
    if together is not None:
        inputs = _with_common_beginnings(sequences, inputs, together)
    units = sorted(
        _units(sequences, inputs, max_tokens, share_prompts, together), key=lambda u: u.n_tokens, reverse=True
    )
    bins: list[list[_Unit]] = []
    room: list[int] = []
    for unit in units:
        fitting = next((b for b, free in enumerate(room) if unit.n_tokens <= free), None)
        if fitting is None:
            bins.append([unit])
            room.append(max_tokens - unit.n_tokens)
        else:
            bins[fitting].append(unit)
            room[fitting] -= unit.n_tokens
    return [_lay_out(sequences, inputs, chosen, keep_last) for chosen in bins]


def _inputs_of(sequence: PromptCompletion, keep_last: bool) -> _Inputs:
    """Return what of a sequence is put through the model.

    Of the completion it is the tokens before the last scored one, and that too where it is kept.
    """
    if sequence.mask is None:
        scored: Sequence[int] = range(len(sequence.completion))
    else:
        scored = [i for i, counts in enumerate(sequence.mask) if counts]
    if not scored:
        return _Inputs((), 0, scored)
    return _Inputs(sequence.completion[: scored[0]], scored[-1] + keep_last, scored)


def _with_common_beginnings(
    sequences: Sequence[PromptCompletion], inputs: Sequence[_Inputs], together: Sequence[int]
) -> list[_Inputs]:
    """Return the inputs, with the tokens that neighbours with equal numbers and prompts begin with to be shared."""
    found = list(inputs)
    for i in range(1, len(sequences)):
        if together[i - 1] == together[i] and list(sequences[i - 1].prompt) == list(sequences[i].prompt):
            pair = [sequences[j].completion[: inputs[j].n_completion] for j in (i - 1, i)]
            n = _n_common(pair)
            for j in (i - 1, i):
                if n > len(found[j].beginning):
                    found[j] = found[j]._replace(beginning=pair[0][:n])
    return found


def _units(
    sequences: Sequence[PromptCompletion],
    inputs: Sequence[_Inputs],
    max_tokens: int,
    share_prompts: bool,
    together: Sequence[int] | None,
) -> list[_Unit]:
    groups: dict[object, dict[int, list[int]]] = {}
    for i, s in enumerate(sequences):
        if inputs[i].scored:
            prompt = tuple(s.prompt) if share_prompts else i if together is None else together[i]
            atom = i if together is None else together[i]
            groups.setdefault(prompt, {}).setdefault(atom, []).append(i)
    units = []
    for atoms in groups.values():
        n_prompt = len(sequences[next(iter(atoms.values()))[0]].prompt)
        current: list[int] = []
        n_tokens = n_prompt
        for members in atoms.values():
            extra = _n_added(inputs, current, members)
            if current and n_tokens + extra > max_tokens:
                units.append(_Unit(tuple(current), n_tokens))
                current, n_tokens = [], n_prompt
                extra = _n_added(inputs, current, members)
            current += members
            n_tokens += extra
        units.append(_Unit(tuple(current), n_tokens))
    return units


def _n_added(inputs: Sequence[_Inputs], present: Sequence[int], members: Sequence[int]) -> int:
    """Return how many tokens members add to a unit that has some already; beginnings that they share count once."""
    known = [inputs[i].beginning for i in present]
    added = 0
    for i in members:
        own = inputs[i].beginning
        n_shared = max((_n_common([own, other]) for other in known), default=0) if len(own) else 0
        added += inputs[i].n_completion - n_shared
        known.append(own)
    return added


def _n_common(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens all sequences have in common."""
    return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*sequences, strict=False)))


class _Layout:
    """A pack that is being laid out, segment by segment."""

    def __init__(self, sequences: Sequence[PromptCompletion], inputs: Sequence[_Inputs], keep_last: bool) -> None:
        self.sequences, self.inputs, self.keep_last = sequences, inputs, keep_last
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.segments: list[Segment] = []
        #: Of each scored token: its predictor, its own place where it is kept, its id, sequence and position in it.
        self.scored: list[tuple[int, int, int, int, int]] = []

    def add(self, unit: _Unit) -> None:
        """Add sequences of one prompt, which comes once."""
        first = unit.members[0]
        if len(unit.members) == 1:
            self._add_one(first, [], None)
        else:
            prompt = self._append(self.sequences[first].prompt, 0, None)
            self._add_branches(unit.members, prompt[-1:], len(self.segments) - 1)

    def _add_branches(self, members: Sequence[int], known: Sequence[int], prefix: int) -> None:
        """Add completions as a tree: what several of them begin with comes once.

        Args:
            members: Numbers of the sequences.
            known: Where the pack has their prompt's last token and the first ones of their completions, alike in all.
            prefix: Number of the segment that ends with these.
        """
        n_done = len(known) - 1
        branches: dict[object, list[int]] = {}
        for i in members:
            beginning = self.inputs[i].beginning
            branches.setdefault(beginning[n_done] if len(beginning) > n_done else (i,), []).append(i)
        for branch in branches.values():
            if len(branch) == 1:
                self._add_one(branch[0], known, prefix)
            else:
                first, n_common = branch[0], _n_common([self.inputs[i].beginning for i in branch])
                shared = self.inputs[first].beginning[n_done:n_common]
                added = self._append(shared, len(self.sequences[first].prompt) + n_done, prefix)
                self._add_branches(branch, [*known, *added], len(self.segments) - 1)

    def _add_one(self, i: int, known: Sequence[int], prefix: int | None) -> None:
        """Add the rest of one sequence, and what is scored of it; arguments are as in `_add_branches`.

        Nothing is known of it, its prompt included, where there is no prefix.
        """
        prompt, completion, _ = self.sequences[i]
        rest = [*completion[max(0, len(known) - 1) : self.inputs[i].n_completion]]
        if prefix is None:
            places: Sequence[int] = self._append([*prompt, *rest], 0, None)[len(prompt) - 1 :]
        else:
            added = self._append(rest, len(prompt) + len(known) - 1, prefix) if rest else ()
            places = [*known, *added]
        for position in self.inputs[i].scored:
            scored = places[position + 1] if self.keep_last else -1
            self.scored.append((places[position], scored, completion[position], i, position))

    def _append(self, ids: Sequence[int], first_position: int, prefix: int | None) -> range:
        """Add a segment, and return where its tokens are."""
        start = len(self.tokens)
        self.segments.append(Segment(start, len(ids), prefix))
        self.tokens.extend(ids)
        self.positions.extend(range(first_position, first_position + len(ids)))
        return range(start, start + len(ids))


def _lay_out(
    sequences: Sequence[PromptCompletion], inputs: Sequence[_Inputs], units: Sequence[_Unit], keep_last: bool
) -> Pack:
    layout = _Layout(sequences, inputs, keep_last)
    for unit in units:
        layout.add(unit)
    predictors, scored, targets, owners, positions = (list(column) for column in zip(*layout.scored, strict=True))
    return Pack(
        _tensor(layout.tokens),
        _tensor(layout.positions),
        tuple(layout.segments),
        _tensor(predictors),
        _tensor(scored if keep_last else []),
        _tensor(targets),
        _tensor(owners),
        _tensor(positions),
        keep_last,
    )


def _tensor(numbers: Sequence[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.long)
