"""Running the guest by talking to QEMU's GDB stub directly, for runs of so many stops that GDB's own work counts.

GDB believes all the while that the guest stands where it stood. What it must not notice is put right at the end:
the stub's current CPU, and GDB's cache of registers. Ctrl-C is looked for at every stop; a thread wakes a guest
that does not stop by itself.

The layout of the `g` packet is that of QEMU's gdb-xml/i386-64bit.xml (target/i386/gdbstub.c). It is compared with
GDB's own reading before the first use.
"""

import contextlib
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import gdb

from exogdb.errors import MemoryFault, TargetLostError, UnavailableError
from exogdb.target.cpus import selected_cpu
from exogdb.target.qemu.peer import find_stub_socket
from exogdb.target.registers import read_register
from exogdb.target.run.ctrl_c import CTRL_C, is_ctrl_c_pending, no_signals
from exogdb.target.run.resume import QEMU_ENDED
from exogdb.target.with_setting import with_setting

__all__ = ["StubRegisters", "StubRun", "open_stub_run"]

_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)), "rip")
# Behind them eflags and six selectors of four bytes each, then bases and control registers of eight.
_BASES = ("fs_base", "gs_base", "k_gs_base", "cr0", "cr2", "cr3")
_LAYOUT = struct.Struct("<17Q28x6Q")
_NUMBERS = {"rip": 16, "gs_base": 25, "k_gs_base": 26}
_INTERRUPT = b"\x03"
_LOOK_SECONDS = 0.05
_NEVER_SECONDS = 1_000_000
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
        self._descriptor = descriptor
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._is_waiting = threading.Event()
        self._is_over = threading.Event()
        self._breakpoints: list[int] = []
        self.thread = ""
        self.ran_ns = 0

    def insert(self, address: int) -> None:
        """A breakpoint that GDB does not know of. It is removed at the end."""
        self._expect_ok(f"Z0,{address:x},1")
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
        data = bytes.fromhex(self._send("g").decode("ascii", "replace").replace("x", "0")[: 2 * _LAYOUT.size])
        return StubRegisters(zip((*_GENERAL, *_BASES), _LAYOUT.unpack(data), strict=True))

    def write(self, name: str, value: int) -> None:
        """Set `rip`, `gs_base` or `k_gs_base` of the CPU that stopped."""
        self._expect_ok(f"P{_NUMBERS[name]:x}={value.to_bytes(8, 'little').hex()}")

    def read(self, address: int, size: int) -> bytes:
        """Memory as the CPU that stopped sees it: implements `exogdb.x86.memory.ReadableMemory`.

        :raise MemoryFault: it is not mapped.
        """
        parts = []
        for at in range(address, address + size, _LARGEST_READ):
            answer = self._send(f"m{at:x},{min(_LARGEST_READ, address + size - at):x}")
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
        if is_ctrl_c_pending():
            return CTRL_C
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "as asked for"
        return ""

    def remove_breakpoints(self) -> None:
        """Take out what `insert` put in."""
        while self._breakpoints:
            self._expect_ok(f"z0,{self._breakpoints[-1]:x},1")
            self._breakpoints.pop()

    def wake_when_due(self) -> None:
        """Body of the helper thread: stop a guest that runs on although the trace is to end."""
        while not self._is_over.wait(_LOOK_SECONDS):
            if self._is_waiting.is_set() and self.reason_to_end:
                with contextlib.suppress(OSError):  # QEMU is gone: the waiting side finds out by itself
                    os.write(self._descriptor, _INTERRUPT)

    def end(self) -> None:
        """Let the helper thread go."""
        self._is_over.set()

    def _resume(self, packet: str) -> bool:
        self._is_waiting.set()
        start = time.monotonic_ns()
        try:
            answer = self._send(packet).decode("ascii", "replace")
        finally:
            self.ran_ns += time.monotonic_ns() - start
            self._is_waiting.clear()
        if answer[:1] in ("W", "X"):
            raise TargetLostError(QEMU_ENDED)
        fields = dict(field.partition(":")[::2] for field in answer[3:].split(";"))
        self.thread = fields.get("thread", self.thread)
        # Another CPU that stops at the same moment becomes the stub's current one behind this answer's back.
        self._expect_ok(f"Hg{self.thread}")
        return answer.startswith("T05")

    def _send(self, packet: str) -> bytes:
        try:
            answer = self._connection.send_packet(packet)
        except (gdb.error, RuntimeError, ValueError) as error:
            raise TargetLostError(QEMU_ENDED) from error
        if answer is None:
            raise UnavailableError(f"the GDB stub does not answer the packet {packet}")
        return answer

    def _expect_ok(self, packet: str) -> None:
        answer = self._send(packet)
        if answer != b"OK":
            raise UnavailableError(
                f"the GDB stub refuses the packet {packet}: {answer.decode('ascii', 'replace')}"
            )


@contextmanager
def open_stub_run(seconds: float | None) -> Iterator[StubRun]:
    """A run that ends after `seconds` at the latest, or at Ctrl-C. The guest is stopped before and after.

    GDB's own breakpoints are in place during the run. Ctrl-C must be held (`exogdb.target.run.ctrl_c`).

    :raise UnavailableError: this connection is none of which that can be done.
    """
    connection = gdb.selected_inferior().connection
    if not isinstance(connection, gdb.RemoteTargetConnection):
        raise UnavailableError("the stub can be talked to over a connection made by `target remote` only")
    descriptor = find_stub_socket()
    if descriptor is None:
        raise UnavailableError("GDB's connection to QEMU is no socket that exogdb could find")
    try:
        run = StubRun(connection, descriptor, seconds)
        helper = threading.Thread(target=run.wake_when_due, name="exogdb-wake", daemon=True)
        with _gdb_kept_in_the_dark(run):
            with no_signals():
                helper.start()
            try:
                yield run
            finally:
                run.end()
                helper.join()
    finally:
        os.close(descriptor)


@contextmanager
def _gdb_kept_in_the_dark(run: StubRun) -> Iterator[None]:
    thread = gdb.selected_thread()
    if thread is None:
        raise UnavailableError("no CPU is selected: choose one with `thread N`")
    with (
        with_setting("breakpoint always-inserted", True),
        with_setting("remotetimeout", _NEVER_SECONDS),
    ):
        run.thread = _name_thread(thread)
        _check_layout(run)
        _insert_users_breakpoints(run.registers()["rip"])
        try:
            yield
        finally:
            try:
                run.remove_breakpoints()
                run._expect_ok(f"Hg{_name_thread(thread)}")
            finally:
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
    run._expect_ok(f"Hg{run.thread}")
    ours = run.registers()
    for name, value in theirs.items():
        if ours[name] != value:
            raise UnavailableError(f"the stub's registers are laid out otherwise: {name} differs")
