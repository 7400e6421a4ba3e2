"""The GDB commands, one file each: parse, read, decode, show.

`source gdbinit.py` has to be quick, so it imports none of them: GDB is told the name and the help of each, and the
file is imported when the command is first run or completed (`exogdb.commands.lazy`). Only what GDB calls by itself
is imported at once, and is small.
"""

__all__ = ["COMMANDS", "FUNCTIONS", "load"]

COMMANDS = {
    "exo-gdt": "gdt",
    "exo-gs": "gs",
    "exo-idt": "idt",
    "exo-msr": "msr",
    "exo-msr lstar": "msr_lstar",
    "exo-msr read": "msr_read",
    "exo-msr star": "msr_star",
    "exo-msr write": "msr_write",
    "exo-syscall": "syscall",
    "exo-syscall abi": "abi",
    "exo-syscall break": "syscall_break",
    "exo-syscall check": "check",
    "exo-syscall finish": "finish",
    "exo-syscall frame": "frame",
    "exo-syscall frame set": "frame_set",
    "exo-syscall list": "syscall_list",
    "exo-syscall next": "next",
    "exo-syscall record": "record",
    "exo-syscall step": "step",
    "exo-syscall summary": "summary",
    "exo-syscall trace": "trace",
    "exo-tss": "tss",
}
"""Each command and its file in this directory, whose function `exo_syscall_break` is `exo-syscall break`."""

FUNCTIONS = {
    "_exo_syscall_stop": "syscall_break",
    "exo_cpl": "functions",
    "exo_gs": "functions",
    "exo_msr": "functions",
}
"""Each convenience function, `$exo_cpl()`, and the file with the function of that name."""

# What follows GDB's events and frames from now on.
_FOLLOWING = ("forgotten", "reset", "saved_breakpoints", "shutdown", "unwind")


def load() -> None:
    """Register every command, function and setting with GDB. Sourcing `gdbinit.py` again registers them again."""
    from importlib import import_module

    from exogdb.commands.lazy import LazyCommand, LazyFunction
    from exogdb.target.settings import let_names_be_utf8, register_settings

    for module in _FOLLOWING:
        import_module(f"{__name__}.{module}")
    let_names_be_utf8()
    register_settings()
    for name in sorted(COMMANDS):  # a prefix comes before what it contains
        LazyCommand(name)
    for name in FUNCTIONS:
        LazyFunction(name)
