"""`exogdb run`: one guest and one GDB, started together and stopped together."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from types import FrameType

from exogdb.errors import LaunchError
from exogdb.launch.child import dying_with_parent, kept_terminal
from exogdb.launch.directory import private_directory
from exogdb.launch.image import Image
from exogdb.launch.progress import SerialFollower
from exogdb.launch.qemu import Machine, Qemu
from exogdb.launch.script import Script, render_script

__all__ = ["Run", "run"]

GDB_EXIT_SECONDS = 5.0


@dataclass(frozen=True)
class Run:
    """What to start. `attach` names the GDB stub of a QEMU that runs already; then `machine` is not used.

    `interactive` gives the user GDB's prompt at the end; otherwise GDB ends after `commands`, and has `seconds`
    for all of it.
    """

    image: Image
    machine: Machine
    gdb: str = "gdb"
    attach: str | None = None
    commands: tuple[str, ...] = ()
    farewell: str = ""
    interactive: bool = True
    seconds: float = 120.0
    write: Callable[[str], object] = field(default=lambda line: print(line, flush=True))


def run(plan: Run) -> int:
    """Start everything, wait for GDB to end, end QEMU, and answer GDB's exit status.

    The guest starts at reset and GDB takes it to its first system call; meanwhile what it prints is shown. The
    sockets and logs are in a new directory that only this user can enter, removed at the end. Whatever becomes of
    GDB, QEMU ends, and the terminal is as it was.

    :raise LaunchError: QEMU or GDB did not start, the socket to attach to is not there, or GDB did not end in time
        when nobody is there to wait for.
    """
    if which(plan.gdb) is None:
        raise LaunchError(f"{plan.gdb} is not installed: install gdb or name another with --gdb")
    # GDB 16 does not name what it could not open.
    if plan.attach is not None and "/" in plan.attach and not Path(plan.attach).exists():
        raise LaunchError(
            f"there is no {plan.attach}: --attach takes the socket or HOST:PORT of a running QEMU's -gdb"
        )
    with ExitStack() as stack:
        stack.enter_context(_ending_on_signals())
        stack.enter_context(kept_terminal())
        directory = stack.enter_context(private_directory())
        if plan.attach is not None:
            return _run_gdb(plan, directory, plan.attach, None)
        return _run_both(plan, directory, stack.enter_context(Qemu(plan.machine, directory)))


def _run_both(plan: Run, directory: Path, qemu: Qemu) -> int:
    plan.write(f"QEMU runs {plan.image.kernel}; GDB, QMP and serial.log are in {directory}")
    hint = plan.write if plan.image.entry is not None else lambda _: None
    booted = directory / "booted"
    follower = SerialFollower(qemu.serial_path, lambda line: plan.write(f"guest: {line}"), booted, hint)
    try:
        with follower:
            status = _run_gdb(plan, directory, str(qemu.gdb_socket), plan.image.entry)
    except _GdbTimeout as error:
        reason = "" if follower.has_booted else ": the guest made no system call; is --entry where they enter?"
        raise LaunchError(f"{error}{reason}") from error
    if not qemu.running and status != 0:
        plan.write(f"QEMU had ended with status {qemu.wait_exit()}. {qemu.log()}".strip())
    return status


class _GdbTimeout(LaunchError):
    """GDB still ran when nobody waits for it any more."""


def _run_gdb(plan: Run, directory: Path, target: str, entry: int | None) -> int:
    script = directory / "start.gdb"
    booted = directory / "booted"
    # A guest that ran before is left running, one that was started here ends here.
    last = "" if plan.interactive else "disconnect" if plan.attach is None else "detach"
    what = Script(target, entry, booted, plan.image.programs, plan.commands, plan.farewell, last)
    script.write_text(render_script(what))
    batch = [] if plan.interactive else ["-nx", "-batch"]
    plain = ["-iex", "set style enabled off"] if os.environ.get("NO_COLOR") else []
    gdb = subprocess.Popen(
        [plan.gdb, "-q", *batch, *plain, "-x", str(script), str(plan.image.kernel)],
        # What GDB leaves behind when it is killed is removed with the directory.
        env={**os.environ, "TMPDIR": str(directory)},
        preexec_fn=dying_with_parent(signal.SIGHUP),
    )
    try:
        return _tell_signal(plan, gdb.wait(None if plan.interactive else plan.seconds))
    except subprocess.TimeoutExpired:
        raise _GdbTimeout(f"GDB was not done after {plan.seconds:g} seconds") from None
    finally:
        _end(gdb)


def _tell_signal(plan: Run, status: int) -> int:
    """GDB's exit status; if a signal ended it, that is said, and the status is a shell's (128 and its number)."""
    if status >= 0:
        return status
    plan.write(f"GDB was ended by {signal.Signals(-status).name}.")
    return 128 - status


def _end(gdb: "subprocess.Popen[bytes]") -> None:
    if gdb.poll() is None:
        # On SIGTERM GDB asks at its prompt whether to go; on SIGHUP it restores the terminal and goes.
        gdb.send_signal(signal.SIGHUP)
        try:
            gdb.wait(GDB_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            gdb.kill()
            gdb.wait()


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Let Ctrl-C be GDB's own affair, and end both programs when this one is asked to end."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    # Not SIG_IGN, which GDB would inherit.
    handlers = {signal.SIGINT: lambda *_: None, signal.SIGTERM: leave, signal.SIGHUP: leave}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
