"""Language models that answer problems: from prompts and token ids to graded, credited trajectories."""

__all__ = ()
