"""`exo-syscall`: the prefix of everything about system calls."""

from exogdb.commands.registry import prefix

__all__: list[str] = []

prefix(
    "exo-syscall",
    """System calls of the guest: the frame, breakpoints, traces, the stub and its checks.

Usage: exo-syscall SUBCOMMAND [ARGUMENTS]
Example: exo-syscall break 101

`help exo-syscall` lists the subcommands.""",
)
