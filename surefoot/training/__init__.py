"""What every training run needs: loaders that resume, ranks, seeds, random state, modes, precision and weights."""

__all__ = ()
