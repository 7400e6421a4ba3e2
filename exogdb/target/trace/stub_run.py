"""Running the guest by talking to QEMU's GDB stub directly, for runs of so many stops that GDB's own work counts.

GDB believes all the while that the guest stands where it stood. What it must not notice is put right at the end:
the stub's current CPU, and GDB's cache of registers. GDB's socket is used past GDB, which waits meanwhile: packets
that need not wait for each other go together (`exogdb.target.qemu.packets`). Ctrl-C and the time are looked at
every 50 ms, and stop a guest that does not stop by itself.

The layout of the `g` packet is that of QEMU's gdb-xml/i386-64bit.xml (target/i386/gdbstub.c). It is compared with
GDB's own reading before the first use.
"""

import contextlib
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import gdb

from exogdb.errors import MemoryFault, TargetLostError, UnavailableError
from exogdb.target.cpus import selected_cpu
from exogdb.target.qemu.packets import PacketStream
from exogdb.target.qemu.peer import find_stub_socket
from exogdb.target.registers import read_register
from exogdb.target.run.ctrl_c import CTRL_C, is_ctrl_c_pending
from exogdb.target.run.resume import QEMU_ENDED
from exogdb.target.run.shutdown import SHUTDOWN, SHUTDOWN_SIGNAL, note_shutdown, require_runnable
from exogdb.target.with_setting import with_setting

__all__ = ["StubRegisters", "StubRun", "open_stub_run"]

_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)), "rip")
# Behind them eflags and six selectors of four bytes each, then bases and control registers of eight.
_BASES = ("fs_base", "gs_base", "k_gs_base", "cr0", "cr2", "cr3")
_NAMES = (*_GENERAL, *_BASES)
_LAYOUT = struct.Struct("<17Q28x6Q")
_NUMBERS = {"rip": 16, "gs_base": 25, "k_gs_base": 26}
_LOOK_MS = 50
_LARGEST_READ = 1024


class StubRegisters(dict[str, int]):
    """The registers of the CPU that stopped, by GDB's names, unsigned."""


class StubRun:
    """A series of resumes and stops. Make one with `open_stub_run`.

    `thread` is the CPU that stopped, in the protocol's words; `ran_ns` how long the guest has run, from resume to
    stop reply, summed up.
    """

    def __init__(self, connection: gdb.RemoteTargetConnection, descriptor: int, seconds: float | None) -> None:
        self._connection = connection
        self._stream = PacketStream(descriptor)
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._writes: list[str] = []
        self._breakpoints: list[int] = []
        self._stopped_by = ""
        self.thread = ""
        self.ran_ns = 0

    def insert(self, address: int) -> None:
        """A breakpoint that GDB does not know of. It is removed at the end."""
        self.order(f"Z0,{address:x},1")
        self._breakpoints.append(address)

    def resume(self) -> bool:
        """Let all CPUs run until one stops; `thread` then names it. False if it was not a breakpoint.

        :raise TargetLostError: QEMU ended.
        """
        return self._resume("vCont;c:p1.-1")

    def step(self) -> bool:
        """One instruction of the CPU that stopped, the others held and no interrupt taken."""
        return self._resume(f"vCont;s:{self.thread}")

    def registers(self) -> StubRegisters:
        """Those of the CPU that stopped."""
        # Another CPU that stops at the same moment becomes the stub's current one behind the stop reply's back.
        chosen, answer = self._ask(f"Hg{self.thread}", "g")
        _expect_ok(f"Hg{self.thread}", chosen)
        data = bytes.fromhex(answer.decode("ascii", "replace").replace("x", "0")[: 2 * _LAYOUT.size])
        return StubRegisters(zip(_NAMES, _LAYOUT.unpack(data), strict=True))

    def write(self, name: str, value: int) -> None:
        """Set `rip`, `gs_base` or `k_gs_base` of the CPU that stopped, before it goes on or is read."""
        self._writes.append(f"P{_NUMBERS[name]:x}={value.to_bytes(8, 'little').hex()}")

    def read(self, address: int, size: int) -> bytes:
        """Memory as the CPU that stopped sees it: implements `exogdb.x86.memory.ReadableMemory`.

        :raise MemoryFault: it is not mapped.
        """
        parts = []
        for at in range(address, address + size, _LARGEST_READ):
            (answer,) = self._ask(f"m{at:x},{min(_LARGEST_READ, address + size - at):x}")
            if not answer or answer.startswith(b"E"):
                raise MemoryFault(address, size)
            parts.append(bytes.fromhex(answer.decode("ascii")))
        return b"".join(parts)

    @property
    def cpu(self) -> int:
        """The index of the CPU that stopped."""
        return int(self.thread.rpartition(".")[2], 16) - 1

    @property
    def reason_to_end(self) -> str:
        """Why no further resume is wanted, or an empty string."""
        if self._stopped_by:
            return self._stopped_by
        if is_ctrl_c_pending():
            return CTRL_C
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "as asked for"
        return ""

    def remove_breakpoints(self) -> None:
        """Take out what `insert` put in."""
        while self._breakpoints:
            self.order(f"z0,{self._breakpoints[-1]:x},1")
            self._breakpoints.pop()

    def select(self, thread: str) -> None:
        """Make that CPU the stub's current one, as GDB believes that it is."""
        self.order(f"Hg{thread}")

    def settle(self) -> None:
        """At the end: what GDB sends next is the stub's only business."""
        try:
            self._stream.settle()
        except OSError:
            return  # GDB finds out by itself

    def order(self, packet: str) -> None:
        """Send `packet`, which is to be answered with OK.

        :raise UnavailableError: it is not. :raise TargetLostError: QEMU ended.
        """
        (answer,) = self._ask(packet)
        _expect_ok(packet, answer)

    def _resume(self, packet: str) -> bool:
        start = time.monotonic_ns()
        try:
            answer = self._wait_for_stop(packet).decode("ascii", "replace")
        finally:
            self.ran_ns += time.monotonic_ns() - start
        if answer[:1] in ("W", "X"):
            self._lose(None)
        fields = dict(field.partition(":")[::2] for field in answer[3:].split(";"))
        self.thread = fields.get("thread", self.thread)
        if answer.startswith("T05"):
            return True
        self._stopped_by = self.reason_to_end or _name_stop(int(answer[1:3], 16))
        return False

    def _wait_for_stop(self, packet: str) -> bytes:
        writes = self._send(packet)
        try:
            while (answer := self._stream.receive_within(_LOOK_MS)) is None:
                if self.reason_to_end:
                    self._stream.interrupt()
        except OSError as error:
            self._lose(error)
        _expect_all_ok(writes)
        return answer

    def _ask(self, *packets: str) -> list[bytes]:
        writes = self._send(*packets)
        answers = [self._receive() for _ in packets]
        _expect_all_ok(writes)
        return answers

    def _send(self, *packets: str) -> list[tuple[str, bytes]]:
        """With what was to be written before; answers that and the replies to it.

        They must be OK, but that is for the caller to see to when no reply is outstanding any more.
        """
        writes, self._writes = self._writes, []
        try:
            self._stream.send(*writes, *packets)
        except OSError as error:
            self._lose(error)
        return [(each, self._receive()) for each in writes]

    def _receive(self) -> bytes:
        try:
            return self._stream.receive()
        except OSError as error:
            self._lose(error)

    def _lose(self, cause: OSError | None) -> NoReturn:
        """QEMU is gone: let GDB notice, too."""
        with contextlib.suppress(gdb.error, RuntimeError, ValueError):
            self._connection.send_packet("qC")
        raise TargetLostError(QEMU_ENDED) from cause


def _name_stop(signal: int) -> str:
    """What a stop was that is neither a breakpoint nor asked for here, by the stub's number for it."""
    if signal == SHUTDOWN_SIGNAL:
        note_shutdown()
        return SHUTDOWN
    return f"the guest was stopped by somebody else, signal {signal}"


def _expect_all_ok(answers: list[tuple[str, bytes]]) -> None:
    for packet, answer in answers:
        _expect_ok(packet, answer)


def _expect_ok(packet: str, answer: bytes) -> None:
    if answer != b"OK":
        raise UnavailableError(f"the GDB stub refuses the packet {packet}: {answer.decode('ascii', 'replace')}")


@contextmanager
def open_stub_run(seconds: float | None) -> Iterator[StubRun]:
    """A run that ends after `seconds` at the latest, or at Ctrl-C. The guest is stopped before and after.

    GDB's own breakpoints are in place during the run. Ctrl-C must be held (`exogdb.target.run.ctrl_c`).

    :raise UnavailableError: this connection is none of which that can be done.
    """
    require_runnable()
    connection = gdb.selected_inferior().connection
    if not isinstance(connection, gdb.RemoteTargetConnection):
        raise UnavailableError("the stub can be talked to over a connection made by `target remote` only")
    descriptor = find_stub_socket()
    if descriptor is None:
        raise UnavailableError("GDB's connection to QEMU is no socket that exogdb could find")
    try:
        run = StubRun(connection, descriptor, seconds)
        with _gdb_kept_in_the_dark(run):
            yield run
    finally:
        os.close(descriptor)


@contextmanager
def _gdb_kept_in_the_dark(run: StubRun) -> Iterator[None]:
    thread = gdb.selected_thread()
    if thread is None:
        raise UnavailableError("no CPU is selected: choose one with `thread N`")
    with with_setting("breakpoint always-inserted", True):
        run.thread = _name_thread(thread)
        _check_layout(run)
        _insert_users_breakpoints(run.registers()["rip"])
        try:
            yield
        finally:
            try:
                run.remove_breakpoints()
                run.select(_name_thread(thread))
            finally:
                run.settle()
                gdb.execute("maintenance flush register-cache", to_string=True)


def _insert_users_breakpoints(anywhere: int) -> None:
    """GDB inserts what is there already only when the list of breakpoints changes next.

    They stay in until the next stop that GDB itself sees.
    """
    gdb.Breakpoint(f"*{anywhere:#x}", internal=True).delete()


def _name_thread(thread: gdb.InferiorThread) -> str:
    """The thread's name in the remote protocol, as QEMU writes it."""
    _process, lightweight, tid = thread.ptid
    return f"p1.{lightweight or tid:02x}"


def _check_layout(run: StubRun) -> None:
    """GDB's own reading of the selected CPU, which also makes it tell the stub which CPU it means.

    Not from its cache: then the stub would still be at the CPU that GDB looked at last.
    """
    gdb.execute("maintenance flush register-cache", to_string=True)
    cpu = selected_cpu()
    theirs = {name: read_register(cpu, name) for name in ("rip", "rsp", "rax", "r15", *_BASES)}
    ours = run.registers()
    for name, value in theirs.items():
        if ours[name] != value:
            raise UnavailableError(f"the stub's registers are laid out otherwise: {name} differs")
