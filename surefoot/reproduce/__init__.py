"""``surefoot reproduce``: one folder a paper; each defines ``PAPER``.

A paper's runs write tidy tables; its claims and its figures read them, and nothing else.
"""

__all__ = ()
