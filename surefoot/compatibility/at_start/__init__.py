"""A folder for the ``PYTHONPATH`` of started processes; see `surefoot.compatibility.started_processes`."""

__all__ = ()
