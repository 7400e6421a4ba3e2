"""Breakpoints on system calls: where they stand, what a hit tells, and GDB's objects for them."""

__all__: list[str] = []
