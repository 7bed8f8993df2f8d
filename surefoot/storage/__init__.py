"""What lies on the disk is whole, locked while it is written, and known by its content."""

__all__ = ()
