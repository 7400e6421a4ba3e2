"""RDMSR and WRMSR executed in the guest: the fallback for what no other source has.

It works at CPL 0 and, with the kernel's selectors loaded for the time of the step, at CPL 3. It is refused
where it could hang or leave a trace: on a CPU halted with interrupts off, in the shadow of STI or MOV SS,
and where no executable address can be used. An RDMSR that is there already comes first, in the kernel's image or
in the pages of its exception handlers; else the bytes at RIP or at such a handler are replaced for the step. See
`guest_step` for what is saved, restored and verified.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path

import gdb

from exogdb.errors import MemoryFault, TargetLostError, UnavailableError
from exogdb.reading import Reading, Unavailable, Value
from exogdb.target.cpus import Cpu
from exogdb.target.memory import VirtualMemory
from exogdb.target.msr.elf_text import find_in_text
from exogdb.target.msr.guest_step import GuestStep, StepStalledError, touching_guest
from exogdb.target.paging import walk_address
from exogdb.target.qemu.cpu_dump import CpuDump
from exogdb.target.registers import read_register
from exogdb.target.run.shutdown import require_runnable
from exogdb.target.tables import has_tss, read_cpu_dump, read_gdt
from exogdb.x86.address import is_upper_half
from exogdb.x86.descriptor import CodeDescriptor, DataDescriptor
from exogdb.x86.gdt import Gdt
from exogdb.x86.idt import Gate, decode_gate
from exogdb.x86.paging import CR4_SMEP
from exogdb.x86.tss import TSS_SIZE, decode_tss

__all__ = ["read_msrs_in_guest", "write_msr_in_guest"]

RDMSR, WRMSR = b"\x0f\x32", b"\x0f\x30"
RFLAGS_IF = 1 << 9
MOST_PLACES = 16
PAGE_SIZE = 4096
EFER_LMA = 1 << 10
# Registers of the stub that show an MSR: after WRMSR they are not restored.
WRITTEN_BY_WRMSR = {
    0xC0000080: {"efer"},
    0xC0000100: {"fs_base"},
    0xC0000101: {"gs_base"},
    0xC0000102: {"k_gs_base"},
}
# Exceptions that a failing RDMSR or WRMSR can raise: #UD, #DF, #GP, #PF.
POSSIBLE_EXCEPTIONS = (6, 8, 13, 14)


def read_msrs_in_guest(cpu: Cpu, numbers: Sequence[int]) -> dict[int, Value]:
    """Execute RDMSR for each of `numbers` on `cpu`, which must be stopped. The guest is touched and restored.

    An MSR whose RDMSR raises an exception is unavailable with that reason. QEMU without hardware acceleration
    reads most MSRs that it does not know as 0.
    :raise UnavailableError: nothing may be executed on this CPU now, or it could not be restored.
    """
    values: dict[int, Value] = {}
    waiting = list(numbers)
    while waiting:
        place = _find_place(cpu, RDMSR)
        with _transaction(cpu, place, RDMSR) as step:
            waiting = _read_until_exception(step, place, waiting, values)
    return values


def write_msr_in_guest(cpu: Cpu, number: int, value: int) -> None:
    """Execute WRMSR on `cpu`, which must be stopped. The MSR keeps the new value; all else is restored.

    :raise UnavailableError: WRMSR raised an exception, or nothing may be executed on this CPU now.
    """
    place = _find_place(cpu, WRMSR)
    with _transaction(cpu, place, WRMSR) as step:
        step.ignored |= WRITTEN_BY_WRMSR.get(number, set())
        operands = {"rcx": number, "rax": value & 0xFFFFFFFF, "rdx": value >> 32}
        try:
            step.execute(place.address, 2, {**place.registers, **operands})
        except UnavailableError as error:
            raise UnavailableError(f"WRMSR of {value:#x} to MSR {number:#x} failed: {error.reason}") from error


@dataclass(frozen=True)
class _Place:
    """Where to execute: an address, whether its bytes must be written first, and the segments for CPL 0."""

    address: int
    is_patched: bool
    registers: Mapping[str, int]
    stacks: tuple[int, ...]


def _read_until_exception(
    step: GuestStep, place: _Place, numbers: Sequence[int], values: dict[int, Value]
) -> list[int]:
    """Fill `values`; the numbers that are left after one whose RDMSR raised an exception."""
    for position, number in enumerate(numbers):
        try:
            step.execute(place.address, 2, {**place.registers, "rcx": number})
        except (TargetLostError, StepStalledError):
            raise
        except UnavailableError as error:
            values[number] = Unavailable(f"RDMSR of {number:#x}: {error.reason}")
            return list(numbers[position + 1 :])
        low, high = read_register(step.cpu, "rax"), read_register(step.cpu, "rdx")
        values[number] = Reading((high & 0xFFFFFFFF) << 32 | low & 0xFFFFFFFF, "rdmsr")
    return []


@contextmanager
def _transaction(cpu: Cpu, place: _Place, code: bytes) -> Iterator[GuestStep]:
    with touching_guest(cpu) as step:
        for top in place.stacks:
            step.keep_stack(top)
        if place.is_patched:
            step.write_code(place.address, code)
        yield step


def _find_place(cpu: Cpu, code: bytes) -> _Place:
    """A place where `cpu` can execute `code` now.

    :raise UnavailableError: the CPU is halted for good, in an interrupt shadow, or no place can be executed.
    """
    dump = read_cpu_dump(cpu)
    _require_steppable(cpu, dump)
    memory = VirtualMemory(cpu)
    registers: dict[str, int] = {}
    if dump.cpl != 0:
        registers = _kernel_segments(read_gdt(memory, dump))
    gates = _possible_gates(memory, dump)
    stacks = _exception_stacks(memory, dump, gates)
    rip, handlers = read_register(cpu, "rip"), [gate.handler for gate in gates if gate.present]
    for address in (*_find_existing(memory, code), *_find_in_pages(memory, handlers, code)):
        if not _why_not_executable(cpu, address, code):
            return _Place(address, False, registers, stacks)
    for address in (rip, *handlers):
        if not _why_not_executable(cpu, address, code):
            return _Place(address, True, registers, stacks)
    problem = _why_not_executable(cpu, rip, code)
    raise UnavailableError(f"nothing can be executed on CPU {cpu.index}: RIP {rip:#x} is {problem}")


def _require_steppable(cpu: Cpu, dump: CpuDump) -> None:
    require_runnable()
    if dump.halted and not read_register(cpu, "eflags") & RFLAGS_IF:
        raise UnavailableError(f"CPU {cpu.index} is halted with interrupts off: an instruction would never run")
    if dump.interrupts_inhibited:
        raise UnavailableError(
            f"CPU {cpu.index} is right behind STI or MOV SS, and executing anything there would let interrupts in "
            "too early: `stepi` once, then ask again"
        )
    if not read_register(cpu, "efer") & EFER_LMA:
        raise UnavailableError(f"CPU {cpu.index} is not in long mode")


def _kernel_segments(gdt: Gdt) -> dict[str, int]:
    """CS and SS for CPL 0: the first 64-bit code and the first writable data segment that have DPL 0."""
    kernels = [entry for entry in gdt.entries if entry.descriptor.present and entry.descriptor.dpl == 0]
    code = [
        entry.selector.value
        for entry in kernels
        if isinstance(entry.descriptor, CodeDescriptor)
        and entry.descriptor.long
        and not entry.descriptor.conforming
    ]
    data = [
        entry.selector.value
        for entry in kernels
        if isinstance(entry.descriptor, DataDescriptor) and entry.descriptor.writable
    ]
    if not code or not data:
        raise UnavailableError("the GDT has no code and data segment for CPL 0: RDMSR cannot run from ring 3")
    return {"ss": data[0], "cs": code[0]}


def _possible_gates(memory: VirtualMemory, dump: CpuDump) -> tuple[Gate, ...]:
    """The gates of the possible exceptions; none where the IDT cannot be read."""
    base = dump.segments["idtr"].base
    try:
        return tuple(decode_gate(memory.read(base + 16 * vector, 16), vector) for vector in POSSIBLE_EXCEPTIONS)
    except MemoryFault:
        return ()


def _exception_stacks(memory: VirtualMemory, dump: CpuDump, gates: Sequence[Gate]) -> tuple[int, ...]:
    """Tops of the stacks that `gates` would switch to, besides the current one."""
    if not has_tss(dump):
        return ()
    try:
        tss = decode_tss(memory.read(dump.segments["tr"].base, TSS_SIZE))
    except MemoryFault:
        return ()
    return tuple({tss.stack_for(gate.ist) for gate in gates if gate.ist})


def _find_in_pages(memory: VirtualMemory, addresses: Sequence[int], code: bytes) -> Iterator[int]:
    """Where `code` is in the pages of `addresses`: a kernel without an image has its RDMSR near its handlers.

    These may be bytes inside other instructions; executed from there they are RDMSR all the same.
    """
    for page in sorted({address & -PAGE_SIZE for address in addresses}):
        try:
            at = memory.read(page, PAGE_SIZE).find(code)
        except MemoryFault:
            continue
        if at >= 0:
            yield page + at


def _find_existing(memory: VirtualMemory, code: bytes) -> Iterator[int]:
    """Upper-half addresses where the loaded images and the guest's memory both have `code`."""
    for objfile in gdb.objfiles():
        path = Path(objfile.filename or "")
        if path.is_file():
            for address in _find_in_image(path, path.stat().st_mtime_ns, code):
                if _holds(memory, address, code):
                    yield address


@lru_cache(maxsize=64)
def _find_in_image(path: Path, _changed_ns: int, code: bytes) -> tuple[int, ...]:
    """The first upper-half places in an image; remembered as long as the file does not change."""
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as image:
            found = (address for address in find_in_text(image, code) if is_upper_half(address))
            return tuple(islice(found, MOST_PLACES))
    except (OSError, ValueError):  # gone, not to be read, or empty while it is linked anew
        return ()


def _holds(memory: VirtualMemory, address: int, code: bytes) -> bool:
    try:
        return memory.read(address, len(code)) == code
    except MemoryFault:
        return False


def _why_not_executable(cpu: Cpu, address: int, code: bytes) -> str:
    """Why CPL 0 cannot fetch `code` from `address` on `cpu` now; empty if it can."""
    for each in dict.fromkeys((address & -PAGE_SIZE, address + len(code) - 1 & -PAGE_SIZE)):
        walk = walk_address(cpu, each)
        if not walk.mapped:
            return f"not mapped ({walk.reason})"
        if walk.nx:
            return "not executable"
        if walk.user and read_register(cpu, "cr4") & CR4_SMEP:
            return "a user page, which SMEP keeps CPL 0 from executing"
    return ""
