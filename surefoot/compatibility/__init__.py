"""What other libraries need to run beside each other."""

__all__ = ()
