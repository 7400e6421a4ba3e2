"""Asking before the guest is changed."""

import sys

import gdb

__all__ = ["is_confirmed"]


def is_confirmed(question: str) -> bool:
    """Ask as GDB's own commands do: not under `set confirm off`, and not when nobody is at a terminal."""
    if not gdb.parameter("confirm") or not sys.stdin.isatty():
        return True
    try:
        return input(f"{question} (y or n) ").strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        return False
