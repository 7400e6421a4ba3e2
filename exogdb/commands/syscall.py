"""`exo-syscall`: the prefix of everything about system calls."""

from exogdb.commands.registry import prefix

__all__: list[str] = []


@prefix("exo-syscall")
def exo_syscall() -> None:
    """System calls: the frame, breakpoints, traces, stub and checks.

    Usage: exo-syscall SUBCOMMAND [ARGUMENTS]
    Example: exo-syscall break 101
    """
