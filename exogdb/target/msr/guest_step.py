"""Executing one instruction of our choice on one CPU of the guest, and putting everything back.

This is the one thing exogdb does that touches the guest. It is a transaction: registers, the bytes that are
overwritten, and the stack memory that an exception would write are saved before, restored in a `finally`, and
compared with what was saved. Ctrl-C, SIGTERM and SIGHUP are held back until the guest is as it was. What stays
after an exception, as after any exception, are accessed and dirty bits in the page-table entries of the stack that
it was pushed to: clearing them behind the CPU's TLB would be the greater lie.

The step is QEMU's own (`vCont;s` for one thread), not GDB's `stepi`: no other CPU runs, no breakpoint is inserted,
no stop is announced to scripts, and QEMU holds back interrupts and timers (`sstepbits`, checked before).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import gdb

from exogdb.errors import MemoryFault, TargetLostError, UnavailableError
from exogdb.interrupts import interrupts_held
from exogdb.target.connection import is_broken
from exogdb.target.cpus import Cpu, cpu_selected, forget_caches, selected_thread
from exogdb.target.memory import VirtualMemory
from exogdb.target.registers import read_register, write_register
from exogdb.target.with_setting import with_setting

__all__ = ["GuestStep", "StepStalledError", "touching_guest"]

# Everything that the stub can write and that an instruction or an exception could change.
SAVED_REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *(f"r{number}" for number in range(8, 16)),
    *("rip", "eflags", "cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base", "k_gs_base", "cr2"),
)
# Only compared: no instruction that is executed here may change them.
COMPARED_REGISTERS = ("cr0", "cr3", "cr4", "efer")
# What one exception pushes: SS, RSP, RFLAGS, CS, RIP, an error code, and up to 15 bytes of alignment.
EXCEPTION_FRAME_BYTES = 64
STEP_HOLDS_INTERRUPTS = 0x6
RFLAGS_TF = 1 << 8
_RECEIVED = re.compile(r'received: "(.*)"')
_STALL_SECONDS = 1  # an instruction takes microseconds
# QEMU reports a step that did not happen when something asks a CPU to leave its loop just then (7.2: 1 in 300).
_MOST_STEPS = 5


class StepStalledError(UnavailableError):
    """The CPU executed nothing: it waits in HLT, and trying again would take as long."""


@dataclass
class GuestStep:
    """An open transaction on `cpu`. `memory` is its address space; `saved` has its registers as they were."""

    cpu: Cpu
    memory: VirtualMemory
    saved: Mapping[str, int]
    saved_memory: dict[int, bytes] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)

    def keep_memory(self, address: int, size: int) -> None:
        """Save `size` bytes at `address`, to be restored at the end. Bytes that are not mapped cannot change."""
        try:
            self.saved_memory[address] = self.memory.read(address, size)
        except MemoryFault:
            return

    def keep_stack(self, top: int) -> None:
        """Save what an exception that starts to push at `top` would overwrite."""
        self.keep_memory((top & ~0xF) - EXCEPTION_FRAME_BYTES, EXCEPTION_FRAME_BYTES)

    def write_code(self, address: int, code: bytes) -> None:
        """Put `code` at `address` for the time of the transaction.

        :raise MemoryFault: not all of it is mapped; nothing was written.
        """
        self.saved_memory[address] = self.memory.read(address, len(code))
        self.memory.write(address, code)

    def execute(self, address: int, size: int, registers: Mapping[str, int]) -> None:
        """Set `registers`, execute the `size`-byte instruction at `address`, and check that only it ran.

        :raise UnavailableError: the instruction raised an exception, or something else ran.
        """
        for name, value in registers.items():
            write_register(self.cpu, name, value)
        write_register(self.cpu, "rip", address)
        write_register(self.cpu, "eflags", self.saved["eflags"] & ~RFLAGS_TF)
        rsp = read_register(self.cpu, "rsp")
        rip = address
        for _ in range(_MOST_STEPS):
            _step(self.cpu)
            rip = read_register(self.cpu, "rip")
            if rip != address or read_register(self.cpu, "rsp") != rsp:
                break
        if rip != address + size:
            happened = "nothing was executed" if rip == address else "it raised an exception"
            raise UnavailableError(f"{happened}: the CPU went to {rip:#x}")

    def restore(self) -> None:
        """Put memory and registers back, and compare.

        :raise UnavailableError: something could not be restored; the message names it.
        """
        for address, data in self.saved_memory.items():
            if self.memory.read(address, len(data)) != data:
                self.memory.write(address, data)
        # SS and CS come first: writing them changes the privilege level, not the other registers.
        for name in ("ss", "cs", *SAVED_REGISTERS):
            if name not in self.ignored and read_register(self.cpu, name) != self.saved[name]:
                write_register(self.cpu, name, self.saved[name])
        self._verify()

    def _verify(self) -> None:
        forget_caches()
        now = _read_registers(self.cpu)
        wrong = [name for name in now if now[name] != self.saved[name] and name not in self.ignored]
        wrong += [
            f"memory at {a:#x}" for a, data in self.saved_memory.items() if self.memory.read(a, len(data)) != data
        ]
        if wrong:
            raise UnavailableError(
                f"CPU {self.cpu.index} could not be restored, do not trust this guest any more: "
                f"{', '.join(wrong)} changed"
            )


@contextmanager
def touching_guest(cpu: Cpu) -> Iterator[GuestStep]:
    """A transaction on `cpu`, which must be stopped. At its end the CPU is as it was, whatever happened.

    :raise UnavailableError: QEMU's single steps let interrupts in, or the CPU could not be restored.
    :raise TargetLostError: QEMU went away.
    """
    with interrupts_held(), _selection_kept(), cpu_selected(cpu):
        _require_quiet_steps()
        step = GuestStep(cpu, VirtualMemory(cpu), _read_registers(cpu))
        step.keep_stack(step.saved["rsp"])
        try:
            yield step
        except TargetLostError:
            raise
        except BaseException:
            step.restore()
            raise
        else:
            step.restore()


@contextmanager
def _selection_kept() -> Iterator[None]:
    """The frame that the user selected (`up`, `frame 2`) is selected again at the end: caches are flushed
    inside.
    """
    level = gdb.selected_frame().level()
    try:
        yield
    finally:
        if gdb.selected_inferior().pid != 0 and level:
            gdb.execute(f"frame level {level}", to_string=True)


def _read_registers(cpu: Cpu) -> dict[str, int]:
    return {name: read_register(cpu, name) for name in (*SAVED_REGISTERS, *COMPARED_REGISTERS)}


def _require_quiet_steps() -> None:
    answer = _send("qqemu.sstep").decode("ascii", "replace")
    try:
        quiet = int(answer, 16) & STEP_HOLDS_INTERRUPTS == STEP_HOLDS_INTERRUPTS
    except ValueError:
        raise UnavailableError("this GDB stub does not say how it steps (qqemu.sstep): it is not QEMU's") from None
    if not quiet:
        raise UnavailableError(
            "QEMU is set to let interrupts in while stepping: `maintenance packet Qqemu.sstep=0x7` undoes that"
        )


def _step(cpu: Cpu) -> None:
    thread = selected_thread()
    assert thread is not None
    assert thread.global_num == cpu.thread
    process, lightweight, _ = thread.ptid
    try:
        with with_setting("remotetimeout", _STALL_SECONDS):
            answer = _send(f"vCont;s:p{process:x}.{lightweight:x}", _exchange_quietly)
    finally:
        forget_caches()  # GDB did not see the step
    if not answer or answer.startswith(b"T02"):
        # GDB asked again after its `remotetimeout`, and QEMU stops at whatever it receives while it runs. QEMU 7
        # says so; newer ones keep quiet, until GDB gives up at the third time.
        raise StepStalledError(f"CPU {cpu.index} is halted, and no interrupt woke it in time to execute anything")
    if not answer.startswith(b"T05"):
        raise UnavailableError(f"QEMU answered a single step with {answer[:20]!r}")


_Exchange: TypeAlias = Callable[[gdb.RemoteTargetConnection, str], bytes]


def _exchange(connection: gdb.RemoteTargetConnection, packet: str) -> bytes:
    return connection.send_packet(packet) or b""


def _exchange_quietly(_connection: gdb.RemoteTargetConnection, packet: str) -> bytes:
    """The same for a packet whose answer may not come: what GDB prints about that is not for the user."""
    found = _RECEIVED.search(gdb.execute(f"maintenance packet {packet}", to_string=True))
    return found[1].encode() if found is not None else b""


def _send(packet: str, exchange: _Exchange = _exchange) -> bytes:
    connection = gdb.selected_inferior().connection
    if not isinstance(connection, gdb.RemoteTargetConnection):
        raise UnavailableError("executing an instruction needs a connection made by `target remote`")
    try:
        return exchange(connection, packet)
    except gdb.error as error:
        if is_broken(error):
            raise TargetLostError("the connection to QEMU broke while an instruction was executed") from error
        if "fetching packet" in str(error):
            return b""  # GDB gave up waiting
        raise UnavailableError(f"QEMU did not answer {packet}: {error}") from error
