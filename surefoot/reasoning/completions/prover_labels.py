"""Ranking provers by the labels that each of them has given to the same stored completions."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.completions.policies import differing_settings
from surefoot.reasoning.completions.store import RECORD, read_trajectories
from surefoot.reasoning.credit import RankedProver, attempts_behind_values, rank_provers
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import single_prover
from surefoot.storage.json_files import read_json

__all__ = ("rank_labels",)

#: Best of how many attempts is asked for by default, as far as the labels' noise can be subtracted.
_KS = (1, 2, 4, 8)


def rank_labels(labels: Sequence[Path], policy: Path | None = None, ks: Sequence[int] = ()) -> list[RankedProver]:
    """Return what the provers of labelled completions are worth to a policy, the most promising first.

    Args:
        labels: Folders that surefoot label wrote of the same completions, one for each prover; a prover's name is its
            folder.
        policy: The one whose prover is the policy that sampled the completions; by default the first. It is ranked
            where it is among the labels.
        ks: Numbers of attempts of which each prover takes the best; by default 1, 2, 4 and 8, up to half of the
            attempts behind a value.

    Raises:
        ConfigError: If there are no labels.
        DataError: If the labels cannot be read or compared, see `rank_provers`, were stopped by how attempts ended, or
            the policy's own are another's.
    """
    folders = list(dict.fromkeys(map(Path, labels)))
    if not folders or any(k < 1 for k in ks):
        raise ConfigError(f"expected folders of labels and k of at least 1, got {len(folders)} and {list(ks)}.")
    own = folders[0] if policy is None else Path(policy)
    found = {folder: _read(folder) for folder in dict.fromkeys([own, *folders])}
    _check_own(found[own], own)
    for folder in folders:
        _warn_of_common_draws(folder, own)
    provers = {
        str(folder): (found[folder], list(dict.fromkeys(ks)) or _known(found[folder], folder)) for folder in folders
    }
    return rank_provers(found[own], provers)


def _read(folder: Path) -> list[Trajectory]:
    """Return the labelled completions of a folder, which one prover has labelled, and without early stops."""
    found = list(read_trajectories(folder))
    record = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    for name in ("half_width", "first_pit"):
        if record.get(name) is not None:
            raise DataError(
                f"{folder} was labelled with {name} {record[name]}: attempts were stopped by how they ended, and values"
                " are biased, even where all have the same number; label it without half_width and first_pit."
            )
    single_prover((t.prover for t in found), folder)
    attempts_behind_values(found, str(folder))
    return found


def _check_own(labelled: Sequence[Trajectory], folder: Path) -> None:
    """Refuse values as the policy's own that another one has given, as far as rows record it.

    Raises:
        DataError: If it has.
    """
    for sampled, valued in dict.fromkeys((t.policy, t.prover) for t in labelled):
        if differing := differing_settings(sampled, valued):
            raise DataError(
                f"{folder} holds no values of the policy that sampled the completions: those are of a prover with"
                f" another {' and '.join(differing)}. Name the policy's own labels with --policy."
            )


def _known(trajectories: Sequence[Trajectory], folder: Path) -> list[int]:
    """Return the default numbers of attempts as far as the noise of their best is known; one attempt in any case."""
    n = attempts_behind_values(trajectories, str(folder))
    return [k for k in _KS if k == 1 or n == 0 or 2 * k <= n]


def _warn_of_common_draws(folder: Path, policy: Path) -> None:
    """Warn where two provers were sampled with the same seed, and may err alike."""
    seeds = [read_json(f / RECORD).get("seed") if (f / RECORD).is_file() else None for f in (folder, policy)]
    if folder.resolve() != policy.resolve() and seeds[0] is not None and seeds[0] == seeds[1]:
        warnings.warn(
            f"{folder} and {policy} were labelled with the same seed, {seeds[0]}: provers that are alike then err"
            " alike, and their alignment comes out too high. Label with another --seed.",
            stacklevel=3,
        )
