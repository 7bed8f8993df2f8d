"""Which checkpoint each model-selection rule chooses, from one run's history.

Reference: Gulrajani & Lopez-Paz, ICLR 2021, arXiv 2007.01434 (why the rule has to be stated).
"""

import math
from collections.abc import Mapping, Sequence

__all__ = ("SELECTION_RULES", "select_checkpoints")

#: Rule -> the logged quantity that it maximises; the first epoch that reaches the maximum wins.
SELECTION_RULES: Mapping[str, str] = {
    "val_average": "val/accuracy",
    "val_worst_group": "val/worst_group_accuracy",
    "test_oracle": "test/worst_group_accuracy",
}


def select_checkpoints(
    history: Sequence[Mapping[str, float]],
) -> dict[str, Mapping[str, float]]:
    """Pick, for each rule, the first entry with the highest value of its quantity.

    Args:
        history: One entry per evaluation, with whatever quantities were logged.

    Returns:
        Rule -> chosen entry; a rule whose quantity was never logged, or was always NaN, is left out.
    """
    chosen: dict[str, Mapping[str, float]] = {}
    for rule, quantity in SELECTION_RULES.items():
        scored = [entry for entry in history if not math.isnan(entry.get(quantity, math.nan))]
        if scored:
            chosen[rule] = max(scored, key=lambda entry: entry[quantity])
    return chosen
