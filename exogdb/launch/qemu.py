"""One QEMU with a GDB stub and a QMP monitor on unix sockets in a directory of its own.

The directory holds, under fixed names::

    gdb.sock     the GDB stub
    qmp.sock     a QMP monitor for the plugin, which finds it by itself
    serial.log   what the guest prints
    qemu.log     what QEMU itself prints

Nothing listens on a TCP port, so any number of guests run side by side and nobody else can attach.
"""

import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exogdb.errors import LaunchError
from exogdb.launch.child import dying_with_parent
from exogdb.launch.deadline import DeadlineExceeded, wait_until
from exogdb.launch.sockets import is_listening

__all__ = ["Machine", "Qemu"]

SOCKET_SECONDS = 20.0
EXIT_SECONDS = 5.0


@dataclass(frozen=True)
class Machine:
    """What is booted, and on what. `memory` is QEMU's `-m`; `extra` goes to QEMU as it is, last."""

    kernel: Path
    append: str = ""
    smp: int = 1
    memory: str = "256M"
    accel: str = "tcg"
    stopped: bool = False
    qemu: str = "qemu-system-x86_64"
    extra: tuple[str, ...] = ()

    def command(self, directory: Path) -> list[str]:
        """The QEMU command line whose sockets and logs are in `directory`."""
        return [
            self.qemu,
            *("-kernel", str(self.kernel), "-append", self.append),
            *("-smp", str(self.smp), "-m", self.memory, "-accel", self.accel),
            *("-display", "none", "-no-reboot"),
            *("-serial", f"file:{directory / 'serial.log'}"),
            *("-gdb", f"unix:{_quote(directory / 'gdb.sock')},server=on,wait=off"),
            *("-qmp", f"unix:{_quote(directory / 'qmp.sock')},server=on,wait=off"),
            *(["-S"] if self.stopped else []),
            *self.extra,
        ]


class Qemu:
    """A running QEMU. Leaving it as a context manager ends it, whatever state it is in."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        """Start QEMU and return when both sockets accept connections.

        :raise LaunchError: there is no such binary, or QEMU refused the machine; carries what it said.
        """
        self.machine = machine
        self.directory = directory
        self.gdb_socket = directory / "gdb.sock"
        self.qmp_socket = directory / "qmp.sock"
        self.serial_path = directory / "serial.log"
        self.log_path = directory / "qemu.log"
        self.serial_path.touch()
        self.command = machine.command(directory)
        self.process = _start(self.command, self.log_path)
        try:
            wait_until(self._ready, SOCKET_SECONDS, "QEMU's sockets")
        except DeadlineExceeded as error:
            self.kill()
            raise LaunchError(f"{error}: {shlex.join(self.command)}") from error
        if self.process.poll() is not None:
            said = self.log().strip() or "it said nothing"
            raise LaunchError(f"{machine.qemu} ended with status {self.process.returncode}: {said}")

    def _ready(self) -> bool:
        exited = self.process.poll() is not None
        return exited or (is_listening(self.qmp_socket) and is_listening(self.gdb_socket))

    def __enter__(self) -> "Qemu":
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    @property
    def running(self) -> bool:
        """Whether the QEMU process is alive; the guest in it may well be stopped."""
        return self.process.poll() is None

    def serial(self) -> str:
        """Everything the guest has printed so far."""
        return _text(self.serial_path)

    def log(self) -> str:
        """Everything QEMU itself has printed so far."""
        return _text(self.log_path)

    def wait_serial(self, text: str, seconds: float = 20.0) -> None:
        """Return when the guest has printed `text`, or QEMU has ended.

        :raise DeadlineExceeded: neither happened in `seconds`.
        """
        wait_until(lambda: text in self.serial() or not self.running, seconds, f"{text!r} on the serial port")

    def wait_exit(self, seconds: float = 20.0) -> int:
        """QEMU's exit status; `isa-debug-exit` makes it `2 * value + 1`.

        :raise DeadlineExceeded: QEMU still ran after `seconds`.
        """
        wait_until(lambda: not self.running, seconds, "QEMU's exit")
        return self.process.wait()

    def terminate(self) -> None:
        """Ask QEMU to end, and kill it if it does not within 5 seconds. Changes nothing once it has ended."""
        if not self.running:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End QEMU at once, as a crash would."""
        self.process.kill()
        self.process.wait()


def _quote(path: Path) -> str:
    """A path in an option that QEMU takes apart at commas."""
    return str(path).replace(",", ",,")


def _start(command: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    if shutil.which(command[0]) is None:
        raise LaunchError(f"{command[0]} is not installed: install qemu-system-x86 or name another with --qemu")
    with log.open("wb") as output:
        # A session of its own: Ctrl-C on the terminal is for GDB and must not end the guest.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=dying_with_parent(signal.SIGTERM),
        )


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
