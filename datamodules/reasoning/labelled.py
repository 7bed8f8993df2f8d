"""Completions with values of their steps, as the verbs label and generate store them."""

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypedDict

from datamodules.reasoning.judged import JudgedDataModule
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.completions.store import read_trajectories
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import Judged, check_labels, prefix_lengths, single_prover

__all__ = ("LabelledCompletionsDataModule",)


class _Known(TypedDict):
    """What `Judged` says of a stored completion beside its prefixes."""

    text: str
    question: str
    outcome: float


class LabelledCompletionsDataModule(JudgedDataModule):
    """What ``surefoot label`` wrote, or ``surefoot generate``."""

    def __init__(
        self, completions: Path | list[Path], judge: Literal["steps", "outcome", "tokens"] = "steps", **judged: Any
    ) -> None:
        """Initialize the data.

        Args:
            completions: Folder that surefoot label wrote, or several, all labelled by one prover; for outcomes and
                tokens those of surefoot generate will do.
            judge: Prefixes with a label: after every step and the prompt, the value; after the last step, the outcome;
                or after every token, the outcome of the whole.
            judged: Arguments of `JudgedDataModule`.

        Raises:
            ConfigError: If there is no folder.
        """
        super().__init__(**judged)
        folders = completions if isinstance(completions, list) else [completions]
        if not folders:
            raise ConfigError("completions must name at least one folder.")
        self.completions, self.judge, self._prover = [Path(folder) for folder in folders], judge, ""

    def read(self) -> Iterator[tuple[str, Judged]]:
        """Yield the completions.

        Raises:
            DataError: If they lack grades, or values where those are asked for, or values are those of several provers.
        """
        provers: dict[str, None] = {}
        for folder in self.completions:
            for i, t in enumerate(read_trajectories(folder)):
                if self.judge == "steps":
                    provers[t.prover] = None
                yield t.problem.id, self._judged(t, f"{folder}, row {i + 1}")
        self._prover = single_prover(provers, " and ".join(map(str, self.completions)))

    def prover(self) -> str:
        """Return the settings of what the values were sampled with, as JSON; empty where nothing has recorded them."""
        self.judged("train")
        return self._prover

    def _judged(self, t: Trajectory, where: str) -> Judged:
        if t.grade is None:
            raise DataError(f"{where} has no grade.")
        outcome, n = float(t.grade.correct), len(t.completion)
        of: _Known = {"text": t.text, "question": t.problem.question, "outcome": outcome}
        if self.judge == "outcome":
            return Judged(t.prompt, t.completion, [n], [outcome], [1.0], [len(t.token_spans())], **of)
        if self.judge == "tokens":
            ends = [span.end for span in t.token_spans()]
            finished = [bisect_right(ends, i) for i in range(n + 1)]
            return Judged(t.prompt, t.completion, range(n + 1), [outcome] * (n + 1), [1.0] * (n + 1), finished, **of)
        lengths = prefix_lengths(t)
        check_labels(t, where)
        return Judged(t.prompt, t.completion, lengths, t.values, [1.0] * len(lengths), range(len(lengths)), **of)
