"""The functional core of Surefoot: tensors, token ids and strings in, the same out."""

__version__ = "0.1.0"
