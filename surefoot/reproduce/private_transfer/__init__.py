"""Public representations for private transfer learning, measured again on made-up tasks and on CIFAR-10's features.

Reference: Thaker, Setlur, Wu, Smith, NeurIPS 2024, arXiv 2312.15551.
"""

from surefoot.reproduce.papers import Paper, claims_in
from surefoot.reproduce.private_transfer import claims, figures, runs

__all__ = ("PAPER",)

PAPER = Paper(
    id="private_transfer",
    title="On the Benefits of Public Representations for Private Transfer Learning under Distribution Shift",
    reference="Thaker, Setlur, Wu, Smith, NeurIPS 2024, arXiv 2312.15551",
    run=runs.run,
    claims=claims_in(claims),
    figures=(
        figures.error_against_samples,
        figures.excess_risk,
        figures.personalisation,
        figures.features_directions,
    ),
    default_seeds={"quick": 1, "laptop": 20, "paper": 20},
)
