"""What every training run needs: loaders that resume, ranks, random state, modes, precision and weights."""

__all__ = ()
