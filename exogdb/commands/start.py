"""What the launcher's script has GDB do before a user sees its prompt: symbols, connection, the first call."""

import json
from collections.abc import Sequence
from pathlib import Path

import gdb

from exogdb.commands.shutdown import say_shutdown
from exogdb.launch.progress import announce_boot
from exogdb.target.run.shutdown import is_shutdown
from exogdb.target.with_setting import with_setting

__all__ = ["define_start"]


def define_start() -> None:
    """Define `maintenance exogdb-start`, which takes a JSON list: target, entry, programs, booted.

    It attaches to the stub at `target` with the symbols of `programs` and lets the guest run to `entry`, the first
    instruction of its entry stub; `booted` is announced when it has stopped, wherever (`exogdb.launch.progress`).
    With a null entry the guest is left where attaching has stopped it. It fails if GDB cannot attach, or the guest
    ended or stopped elsewhere.
    """
    _Start("maintenance exogdb-start", gdb.COMMAND_MAINTENANCE)


class _Start(gdb.Command):
    """Attach and run to the first system call: used by `exogdb run`."""

    def invoke(self, argument: str, from_tty: bool) -> None:
        """A command, not a function: GDB shows a function's errors with the Python that raised them."""
        try:
            _start(*json.loads(argument))
        except gdb.error as error:
            raise gdb.GdbError(" ".join(str(error).split())) from None


def _start(target: str, entry: int | None, programs: Sequence[str], booted: str) -> None:
    with with_setting("suppress-cli-notifications", True):
        for program in programs:
            gdb.execute(f"add-symbol-file {json.dumps(program)}", to_string=True)
        gdb.execute(f"target remote {target}", to_string=True)
        if entry is not None:
            try:
                _go_to_first_call(entry)
            finally:
                announce_boot(Path(booted))  # stopped elsewhere, the prompt comes: nothing may run into it either
    if entry is not None:
        gdb.write("The guest is at its first system call:\n")


def _go_to_first_call(entry: int) -> None:
    # A hardware breakpoint needs no page to be mapped yet, and writes nothing into the guest.
    gdb.execute(f"thbreak *{entry:#x}", to_string=True)
    seen: list[gdb.StopEvent] = []
    gdb.events.stop.connect(seen.append)
    try:
        gdb.execute("continue", to_string=True)
    except gdb.error:
        if gdb.selected_inferior().pid:
            raise
    finally:
        gdb.events.stop.disconnect(seen.append)
    if not gdb.selected_inferior().pid:
        raise gdb.GdbError(
            "QEMU ended before the guest's first system call: it shut down or reset, as after a triple fault"
        )
    if any(map(is_shutdown, seen)):
        say_shutdown()  # what was said at the stop went where the output of `continue` went
        raise gdb.GdbError("The guest did not get to its first system call")
    if gdb.selected_frame().pc() != entry:
        raise gdb.GdbError(
            "The guest was stopped before its first system call; `continue` goes on to it, `bt` shows where "
            "it is, `exo-syscall check` what is wrong with the way there"
        )
