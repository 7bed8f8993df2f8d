from surefoot.reproduce.claims import Findings

__all__ = ("measure_curation",)


def measure_curation(scale, n_seeds, out):
    return Findings([])
