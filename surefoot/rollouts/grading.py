"""From sampled trajectories to graded ones."""

from collections.abc import Sequence

from surefoot.answers import Grader
from surefoot.language_models import LanguageModel
from surefoot.trajectories import Trajectory

__all__ = ("grade_trajectories",)


def grade_trajectories(
    trajectories: Sequence[Trajectory], model: LanguageModel, grader: Grader, prefix: str = ""
) -> None:
    """Fill in the trajectories' texts and grades.

    Args:
        trajectories: Sampled ones.
        model: Whose tokenizer decodes them.
        grader: Finds and compares final answers.
        prefix: Text of the answer that stood in the prompt already.
    """
    for t in trajectories:
        t.text = prefix + model.decode(t.completion)
    grades = grader([t.text for t in trajectories], [t.problem.answer for t in trajectories])
    for t, grade in zip(trajectories, grades, strict=True):
        t.grade = grade
