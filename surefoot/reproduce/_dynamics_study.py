from surefoot.reproduce.claims import Findings

__all__ = ("measure_study",)


def measure_study(scale, n_seeds, out):
    return Findings([])
