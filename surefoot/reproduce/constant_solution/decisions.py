"""What acting on predicted rewards earns out of distribution, beside acting on probabilities."""

from pathlib import Path
from statistics import fmean

from surefoot.report.figures import interval_curves
from surefoot.report.shift_figures import family_and_level
from surefoot.reproduce.claims import Measurement, at_least, interval_above, reported
from surefoot.reproduce.constant_solution.runs import Rows, Runs
from surefoot.reproduce.constant_solution.studies import CROSS_ENTROPY, REWARD
from surefoot.statistics import Estimate, mean_interval, paired_difference

__all__ = ("decision_claims",)

#: Levels that count as clearly out of distribution.
_FAR = (3, 4, 5)


def decision_claims(classifier: Runs, predictor: Runs, out: Path) -> tuple[list[Measurement], Rows]:
    """Compare acting on predicted rewards with acting on the most probable class, and with the oracle."""
    name = classifier.study.name
    rows: Rows = [
        {"study": name, "training": runs.name, "seed": seed, **row}
        for runs in (classifier, predictor)
        for seed, table in enumerate(runs.table("selective_risk.csv"))
        for row in table
    ]

    def mean_of(policy: str, kind: str, training: str, far: bool) -> list[float]:
        kept = [r for r in rows if r["policy"] == policy and r["training"] == training]
        first = kept[0]["set"]

        def counts(set_name: str) -> bool:
            level = family_and_level(set_name)[1]
            single = level == 1 and not set_name.endswith("_1")
            return (set_name != first and (level in _FAR or single)) if far else set_name == first

        return [
            fmean(float(r[kind]) for r in kept if r["seed"] == seed and counts(r["set"]))
            for seed in range(len(classifier.sets))
        ]

    standard = mean_of("always_act", "reward", CROSS_ENTROPY, far=True)
    cautious = mean_of("reward_prediction", "reward", REWARD, far=True)
    abstains = [mean_of("reward_prediction", "abstention", REWARD, far) for far in (True, False)]
    differs = "a difference has to stand out from the seeds"
    others = {
        p: mean_of(p, "reward", CROSS_ENTROPY, far=True) for p in ("max_softmax", "calibrated_max_softmax", "oracle")
    }
    levels: dict[str, list[tuple[float, Estimate]]] = {}
    policies = {
        "reward prediction": ("reward_prediction", REWARD),
        "always act": ("always_act", CROSS_ENTROPY),
        "max softmax": ("max_softmax", CROSS_ENTROPY),
        "calibrated max softmax": ("calibrated_max_softmax", CROSS_ENTROPY),
        "oracle (sees the labels)": ("oracle", CROSS_ENTROPY),
    }
    for kind in ("reward", "abstention"):
        for label, (policy, training) in policies.items():
            kept = [r for r in rows if r["policy"] == policy and r["training"] == training]
            points = []
            for level in range(6):
                values = [
                    fmean(
                        float(r[kind])
                        for r in kept
                        if r["seed"] == seed
                        and (
                            r["set"] == kept[0]["set"]
                            if level == 0
                            else family_and_level(r["set"])[1] == level
                            and family_and_level(r["set"])[0] in classifier.graded
                        )
                    )
                    for seed in range(len(classifier.sets))
                ]
                points.append((float(level), mean_interval(values)))
            levels[label] = points
        interval_curves(
            levels,
            ("level of the shift (mean over kinds)", kind),
            out / "figures" / f"{kind}_{name}",
            f"Decisions on {name}: right +1, wrong -4, abstain 0",
        )
    return [
        Measurement(
            f"{name}_reward_prediction_beats_acting",
            f"Out of distribution, acting on predicted rewards earns more than acting always, on {name} (difference of"
            " mean rewards)",
            "section 6",
            interval_above(0, differs),
            paired_difference(cautious, standard),
            "reward",
        ),
        Measurement(
            f"{name}_reward_prediction_abstains_more",
            f"The predictor of rewards abstains more often out of distribution, on {name} (rise of the share)",
            "section 6: .13 to .61",
            interval_above(0, differs),
            paired_difference(abstains[0], abstains[1]),
            "fraction",
        ),
        Measurement(
            f"{name}_reward_prediction_in_distribution",
            f"In distribution, acting on predicted rewards costs little against acting always, on {name} (difference)",
            "section 6: .72 against .55",
            at_least(-0.2, "a fifth of a right answer's reward"),
            paired_difference(
                mean_of("reward_prediction", "reward", REWARD, far=False),
                mean_of("always_act", "reward", CROSS_ENTROPY, far=False),
            ),
            "reward",
        ),
        Measurement(
            f"{name}_reward_prediction_against_max_softmax",
            "Reward prediction against answering where the classifier's probability exceeds 0.8, out of distribution,"
            f" on {name}",
            "ours: a baseline that users have at hand",
            reported("the paper has no such baseline"),
            paired_difference(cautious, others["max_softmax"]),
            "reward",
        ),
        Measurement(
            f"{name}_reward_prediction_against_calibrated",
            f"The same against probabilities calibrated in distribution, on {name}",
            "ours",
            reported("the paper has no such baseline"),
            paired_difference(cautious, others["calibrated_max_softmax"]),
            "reward",
        ),
        Measurement(
            f"{name}_oracle_above_reward_prediction",
            f"What the oracle, which sees the labels of the judged set, earns more, on {name}",
            "section 6",
            reported("no one can have it: it bounds what caution could earn"),
            paired_difference(others["oracle"], cautious),
            "reward",
        ),
    ], rows
