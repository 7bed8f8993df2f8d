"""The check that every language model passes when it is built: what we score is what the model itself says."""

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from surefoot.errors import ConfigError
from surefoot.reasoning.language_models.forward import (
    ForwardPath,
    OutputHead,
    find_output_head,
    hidden_states,
    rope_limit,
    score_pack,
)
from surefoot.reasoning.sequences import (
    PACKED_ATTENTION,
    KeysAndValues,
    Pack,
    PromptCompletion,
    Segment,
    pack_sequences,
    unscored_pack,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ("MOST_COPIED", "ExampleSequences", "choose_path", "difference_by_kept_keys", "trial_of")

T = TypeVar("T")

#: Models of at most so many parameters are checked on a copy in float32 with large random weights.
MOST_COPIED = 10**7
#: Models of at most so many, in float32 and on a CPU, have a gradient checked.
_DIFFERENTIATED = 5 * 10**8
#: How much a log-probability may differ, in nats, and a tenth of how much a gradient may of its largest element. A copy
#: differs by about 1e-6; SmolLM2-135M (30 layers, log-probabilities down to -22) by 2e-5.
_TOLERANCE = 1e-4
#: Windows and chunks are this long while a model is checked.
_WINDOW = 6


def choose_path(base: "PreTrainedModel", check: bool = True) -> ForwardPath:
    """Find out how packs are scored right, and set the attention implementation to match.

    A few short random sequences, some with a shared prompt and one longer than any window, are scored packed and by the
    model's own eager forward pass. Where they disagree, the model's own forward pass on one sequence at a time is
    tried. Small models are checked with large random weights, on a copy: what is wrong then shows, whatever the
    weights. Larger ones are checked as they are. Arithmetic is float32 in either case, as rounding to half precision
    hides what is wrong. Windows and chunks are shortened for the time of the check.

    Args:
        base: The model, adapters included; its weights, modes, gradients and the random state stay as they are.
        check: Whether to check at all.

    Returns:
        The path.

    Raises:
        ConfigError: If no path agrees with the model, with the family's name and the largest difference.
    """
    if base.get_output_embeddings() is None:
        raise ConfigError(f"{type(base).__name__} has no language-model head.")
    if any(p.is_meta for p in base.parameters()):
        raise ConfigError(f"{base.config.model_type}: the model has no weights yet (meta device): load them first.")
    with _undisturbed(base):
        head, reason = _find_head(base)
        path = ForwardPath(True, head, rope_limit(base.config))
        return _checked(base, path, reason) if check else _taken_for_granted(base, path, reason)


def _find_head(base: "PreTrainedModel") -> tuple[OutputHead | None, str | None]:
    """Return what follows a model's last hidden states, and why the model cannot be packed; packed attention is set."""
    _set_attention(base, "eager")
    tokens = ExampleSequences(base).head_tokens
    head = _try(lambda: find_output_head(base, tokens))
    reason = _set_attention(base, PACKED_ATTENTION)
    if isinstance(head, OutputHead):
        return head, reason
    return None, reason or f"its logits do not follow from its hidden states ({head or 'no scale, no soft cap'})"


def _taken_for_granted(base: "PreTrainedModel", path: ForwardPath, reason: str | None) -> ForwardPath:
    """Return the path of a model that is not checked, and warn."""
    family = base.config.model_type
    if reason is not None:
        raise ConfigError(f"{family} cannot be packed ({reason}): it needs the check, leave check_forward on.")
    warnings.warn(
        f"{family} is not checked: whether its packed log-probabilities are its own is taken for granted.",
        stacklevel=5,
    )
    return path


def _checked(base: "PreTrainedModel", packed: ForwardPath, reason: str | None) -> ForwardPath:
    """Return the packed path where it agrees with the model's own forward pass, else one of one sequence at a time.

    Args:
        base: The model; its attention implementation is set.
        packed: The path that is tried first.
        reason: Why it cannot be right; none where it may be.
    """
    family = base.config.model_type
    trial = _trial(base)
    examples = ExampleSequences(trial)
    with _short_windows(trial), _in_float32(trial):
        _set_attention(trial, "eager")
        reference = _try(lambda: examples.unpacked(trial))
        if isinstance(reference, str):
            raise ConfigError(f"{family} cannot score a sequence: {reference}.")
        if reason is None:
            _set_attention(trial, PACKED_ATTENTION)
            reason = examples.difference(trial, packed, reference)
            if reason is None:
                _set_attention(base, PACKED_ATTENTION)
                return packed
        failure: str | None = None
        for implementation in ("sdpa", "eager"):
            for path in (replace(packed, packed=False), ForwardPath(False, None)):
                if _set_attention(trial, implementation) is not None:
                    continue
                failure = examples.difference(trial, path, reference)
                if failure is None:
                    _set_attention(base, implementation)
                    warnings.warn(
                        f"{family} cannot be packed ({reason}): its sequences pass through the model one at a time,"
                        " which is right but slower.",
                        stacklevel=5,
                    )
                    return path
    raise ConfigError(
        f"{family} is not supported: log-probabilities differ from the model's own, packed ({reason}) and one"
        f" sequence at a time ({failure})."
    )


def _try(function: Callable[[], T]) -> T | str:
    """Return a function's result, or what went wrong in one line."""
    try:
        return function()
    except Exception as error:  # noqa: BLE001  whatever a model of any family raises
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


@contextlib.contextmanager
def trial_of(base: "PreTrainedModel") -> Iterator[tuple["PreTrainedModel", "ExampleSequences"]]:
    """Give what one more way of computing is tried on: a model as `choose_path` checks it, and sequences.

    Args:
        base: The model; its modes and the random state are put back.
    """
    with _undisturbed(base):
        trial = _trial(base)
        with _short_windows(trial), _in_float32(trial):
            yield trial, ExampleSequences(trial)


def difference_by_kept_keys(base: "PreTrainedModel", path: ForwardPath) -> str | None:
    """Return how hidden states from kept keys and values differ from those of one pass; None where they do not.

    The last two tokens of a few sequences are computed from what was kept of the others: they are fewer than their own
    positions, as a step's tokens are.

    Args:
        base: The model; its modes and the random state are put back.
        path: How its packs are scored, at once.
    """
    with trial_of(base) as (trial, examples), torch.no_grad():
        whole = [[*s.prompt, *s.completion] for s in examples.sequences]
        parts = [*(s[:-2] for s in whole), *(s[-2:] for s in whole)]
        n, lengths = len(whole), [len(part) for part in parts]
        starts = [0, *accumulate(lengths)]
        segments = [Segment(starts[i], lengths[i], None if i < n else i - n) for i in range(2 * n)]
        tokens = [token for part in parts for token in part]
        positions = [j + (0 if i < n else lengths[i - n]) for i in range(2 * n) for j in range(lengths[i])]
        both = unscored_pack(tokens, positions, segments).to(trial.device)
        first = unscored_pack(tokens[: starts[n]], positions[: starts[n]], segments[:n]).to(trial.device)
        expected = hidden_states(trial, path, both)[starts[n] :]

        def in_two_passes() -> Tensor:
            memory = KeysAndValues([], lengths[:n])
            hidden_states(trial, path, first, memory)
            return hidden_states(trial, path, both, KeysAndValues(memory.new, lengths[n:]))

        found = _try(in_two_passes)
    if isinstance(found, str):
        return found
    worst = float((found - expected).abs().max() / expected.abs().max())
    return None if worst <= _TOLERANCE else f"a hidden state differs by {worst:.2g} of the largest"


class ExampleSequences:
    """A few random sequences."""

    def __init__(self, base: "PreTrainedModel") -> None:
        """Draw sequences of a model's plain tokens, the same ones each time."""
        embedding: Any = base.get_input_embeddings()
        n = min(int(base.config.get_text_config().vocab_size), len(embedding.weight))
        special = _special_tokens(base.config)
        allowed = torch.tensor([i for i in range(min(n, 50_000)) if i not in special] or [0])
        generator = torch.Generator().manual_seed(0)

        def draw(count: int) -> list[int]:
            return allowed[torch.randint(len(allowed), (count,), generator=generator)].tolist()

        shared, device = draw(5), base.device
        #: The first three share a prompt; the last two are longer than a window.
        self.sequences = [
            PromptCompletion(shared, draw(9)),
            PromptCompletion(shared, draw(1)),
            PromptCompletion(shared, draw(4)),
            PromptCompletion(draw(3), draw(6)),
            PromptCompletion(draw(2), draw(2 * _WINDOW)),
        ]
        (pack,) = pack_sequences(self.sequences, 10**6)
        self.pack: Pack = pack.to(device)
        self.head_tokens = torch.tensor([draw(max(2, -(-150 // n)))], device=device)

    def unpacked(self, base: "PreTrainedModel") -> tuple[Tensor, Tensor | None]:
        """Return the log-probabilities by the model's own forward pass, ``(scored,)``, and a gradient of theirs."""
        with torch.set_grad_enabled(bool(_watched(base))):
            scored = []
            for s in self.sequences:
                tokens = torch.tensor([[*s.prompt, *s.completion]], device=base.device)
                logits = base(input_ids=tokens, use_cache=False).logits[0, len(s.prompt) - 1 : -1]
                wide = torch.promote_types(logits.dtype, torch.float32)
                logprobs = logits.to(wide).log_softmax(-1)
                scored.append(logprobs.gather(1, tokens[0, len(s.prompt) :, None])[:, 0])
            return _with_gradient(base, self.pack.gather(scored))

    def packed(self, base: "PreTrainedModel", path: ForwardPath) -> tuple[Tensor, Tensor | None]:
        """Return the same on a path of ours."""
        with torch.set_grad_enabled(bool(_watched(base))):
            return _with_gradient(base, score_pack(base, path, self.pack).logprobs)

    def difference(
        self,
        base: "PreTrainedModel",
        path: ForwardPath,
        reference: tuple[Tensor, Tensor | None],
    ) -> str | None:
        """Return what is wrong with a path; None where nothing is."""
        found = _try(lambda: self.packed(base, path))
        if isinstance(found, str):
            return found
        worst = float((found[0] - reference[0]).abs().max())
        if not worst <= _TOLERANCE:
            return f"a log-probability differs by {worst:.2g} nats"
        if found[1] is not None and reference[1] is not None:
            size = float(reference[1].abs().max())
            worst = float((found[1] - reference[1]).abs().max()) / max(size, 1e-30)
            if not worst <= 10 * _TOLERANCE:
                return f"a gradient differs by {worst:.2g} of its largest element"
        return None


def _special_tokens(config: Any) -> set[int]:
    """Return the tokens that a config gives a meaning: those of images and the like need more than themselves."""
    special: set[int] = set()
    for part in (config, config.get_text_config()):
        for name, value in vars(part).items():
            if name.endswith(("_token_id", "_token_index", "_token_ids")):
                special |= {v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int)}
    return special


def _watched(base: "PreTrainedModel") -> list[nn.Parameter]:
    """Return the parameters whose gradient is compared: all of a small model's, one of a larger one's."""
    n = sum(p.numel() for p in base.parameters())
    trained = [p for p in base.parameters() if p.requires_grad]
    if n <= MOST_COPIED:
        return trained
    half = any(p.dtype in (torch.float16, torch.bfloat16) for p in base.parameters())
    if n > _DIFFERENTIATED or half or base.device.type != "cpu":
        return []
    return [p for p in trained if p.numel() <= 10**6][:1]


def _with_gradient(base: "PreTrainedModel", logprobs: Tensor) -> tuple[Tensor, Tensor | None]:
    watched = _watched(base)
    if not watched:
        return logprobs.detach(), None
    total = (logprobs * torch.linspace(-1, 1, len(logprobs), device=logprobs.device)).sum()
    parts = torch.autograd.grad(total, watched, allow_unused=True)
    pairs = zip(parts, watched, strict=True)
    flat = [(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs]
    return logprobs.detach(), torch.cat(flat)


def _trial(base: "PreTrainedModel") -> "PreTrainedModel":
    """Return the model that is checked: for a small one, a copy with other weights."""
    if sum(p.numel() for p in base.parameters()) > MOST_COPIED:
        return base
    trial: PreTrainedModel = copy.deepcopy(base).float().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in trial.parameters():
            noise = torch.randn(p.shape, generator=generator).to(p.device)
            if p.dim() > 1:
                p.copy_(noise * 1.5 / p.shape[-1] ** 0.5)
            else:
                p.add_(0.3 * noise)
    return trial


@contextlib.contextmanager
def _in_float32(base: nn.Module) -> Iterator[None]:
    """Let each module of a model in half precision compute in float32, its weights only while it runs."""
    hooks: list[Any] = []
    kept: dict[nn.Module, list[tuple[nn.Parameter, Tensor]]] = {}

    def widen(module: nn.Module, args: object) -> None:
        kept[module] = [(p, p.data) for p in _half(module)]
        for p, _ in kept[module]:
            p.data = p.data.float()

    def narrow(module: nn.Module, args: object, output: object) -> None:
        for p, data in kept.pop(module, []):
            p.data = data

    for module in base.modules():
        if _half(module):
            hooks.append(module.register_forward_pre_hook(widen))
            hooks.append(module.register_forward_hook(narrow, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _half(module: nn.Module) -> list[nn.Parameter]:
    """Return a module's own parameters in half precision."""
    own = module.parameters(recurse=False)
    return [p for p in own if p.dtype in (torch.float16, torch.bfloat16)]


def _set_attention(base: "PreTrainedModel", implementation: str) -> str | None:
    """Set a model's attention implementation; returns why it cannot be set."""
    if not base._can_set_attn_implementation():
        own = base.config._attn_implementation
        return None if implementation == own else "it does not use transformers' attention interface"
    try:
        base.set_attn_implementation(implementation)
    except ValueError as error:
        return str(error).splitlines()[0]
    return None


@contextlib.contextmanager
def _undisturbed(base: "PreTrainedModel") -> Iterator[None]:
    """Put a model into evaluation mode, and back module by module; keep the random state."""
    modes = [(m, m.training) for m in base.modules()]
    devices = [base.device] if base.device.type == "cuda" else []
    base.eval()
    try:
        with torch.random.fork_rng(devices=devices), torch.inference_mode(False):
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def _short_windows(base: "PreTrainedModel") -> Iterator[None]:
    """Shorten a config's sliding windows and chunks, so that short sequences are longer."""
    kept = []
    for part in {id(c): c for c in (base.config, base.config.get_text_config())}.values():
        for name in ("sliding_window", "attention_chunk_size"):
            value = getattr(part, name, None)
            if isinstance(value, int) and value > _WINDOW:
                kept.append((part, name, value))
                setattr(part, name, _WINDOW)
    try:
        yield
    finally:
        for part, name, value in kept:
            setattr(part, name, value)
