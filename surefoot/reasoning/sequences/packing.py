"""Packing: many sequences in one row of tokens, no padding, a shared prompt only once.

A pack is a row of segments. Each token attends to its own segment up to itself and to the whole of the segments
before it in its chain of prefixes; nothing attends across chains. Completions of one prompt share its segment, so a
group of G completions costs ``prompt + G * completion`` tokens instead of ``G * (prompt + completion)``, with the same
log-probabilities and gradients. A sequence's last token is only ever predicted, so it is not put through the model,
unless something reads its hidden state, such as a value head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ("Pack", "PromptCompletion", "Segment", "empty_pack", "pack_sequences")


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


def empty_pack(token: int) -> Pack:
    """Return a pack of one token of which nothing is scored: a forward pass for a rank that has nothing of its own."""
    none = torch.zeros(0, dtype=torch.long)
    start = torch.zeros(1, dtype=torch.long)
    return Pack(start + token, start, (Segment(0, 1, None),), none, none, none, none, none, True)


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

    Sequences with equal prompts share it where that saves tokens. One that is longer than ``max_tokens`` by itself gets
    a pack of its own. Sequences without a scored token are left out.

    Args:
        sequences: What is to be packed.
        max_tokens: Most tokens of a pack.
        share_prompts: Whether equal prompts are put through the model once per pack.
        together: A number per sequence; neighbours with equal numbers and prompts (the two of a preference pair) come
            into the same pack.
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
    n_inputs = [_n_inputs(s, keep_last) for s in sequences]
    units = sorted(
        _units(sequences, n_inputs, max_tokens, share_prompts, together),
        key=lambda u: u.n_tokens,
        reverse=True,
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
    return [_lay_out(sequences, n_inputs, chosen, keep_last) for chosen in bins]


def _scored(sequence: PromptCompletion) -> list[int]:
    """Return the positions of the completion's scored tokens."""
    if sequence.mask is None:
        return list(range(len(sequence.completion)))
    return [i for i, counts in enumerate(sequence.mask) if counts]


def _n_inputs(sequence: PromptCompletion, keep_last: bool) -> int:
    """Return how many of the completion's tokens are put through the model; none where none is scored.

    They are those before the last scored one, and it too where it is kept.
    """
    last = max(_scored(sequence), default=None)
    return 0 if last is None else last + keep_last


def _units(
    sequences: Sequence[PromptCompletion],
    n_inputs: Sequence[int],
    max_tokens: int,
    share_prompts: bool,
    together: Sequence[int] | None,
) -> list[_Unit]:
    groups: dict[object, dict[int, list[int]]] = {}
    for i, s in enumerate(sequences):
        if _scored(s):
            prompt = tuple(s.prompt) if share_prompts else i if together is None else together[i]
            atom = i if together is None else together[i]
            groups.setdefault(prompt, {}).setdefault(atom, []).append(i)
    units = []
    for atoms in groups.values():
        n_prompt = len(sequences[next(iter(atoms.values()))[0]].prompt)
        current: list[int] = []
        n_tokens = n_prompt
        for members in atoms.values():
            extra = sum(n_inputs[i] for i in members)
            if current and n_tokens + extra > max_tokens:
                units.append(_Unit(tuple(current), n_tokens))
                current, n_tokens = [], n_prompt
            current += members
            n_tokens += extra
        units.append(_Unit(tuple(current), n_tokens))
    return units


def _lay_out(
    sequences: Sequence[PromptCompletion], n_inputs: Sequence[int], units: Sequence[_Unit], keep_last: bool
) -> Pack:
    tokens: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    predictors: list[int] = []
    scored: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    completion_positions: list[int] = []

    def append(ids: Sequence[int], first_position: int, prefix: int | None) -> int:
        start = len(tokens)
        tokens.extend(ids)
        positions.extend(range(first_position, first_position + len(ids)))
        segments.append(Segment(start, len(ids), prefix))
        return start

    for unit in units:
        prompt = list(sequences[unit.members[0]].prompt)
        shared = len(unit.members) > 1
        if shared:
            prompt_start, prompt_segment = append(prompt, 0, None), len(segments) - 1
        for i in unit.members:
            s = sequences[i]
            inputs = list(s.completion[: n_inputs[i]])
            if not shared:
                prompt_start = append(prompt + inputs, 0, None)
                start = prompt_start + len(prompt)
            elif inputs:
                start = append(inputs, len(prompt), prompt_segment)
            else:
                start = len(tokens)
            for position in _scored(s):
                predictors.append(start + position - 1 if position else prompt_start + len(prompt) - 1)
                scored.append(start + position)
                targets.append(s.completion[position])
                owners.append(i)
                completion_positions.append(position)
    if not keep_last:
        scored = []
    return Pack(
        _tensor(tokens),
        _tensor(positions),
        tuple(segments),
        _tensor(predictors),
        _tensor(scored),
        _tensor(targets),
        _tensor(owners),
        _tensor(completion_positions),
        keep_last,
    )


def _tensor(numbers: Sequence[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.long)
