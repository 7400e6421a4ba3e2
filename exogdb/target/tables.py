"""GDT, IDT and TSS of one CPU: where they are from QEMU's monitor, what is in them from memory.

The GDB stub does not have GDTR, IDTR and TR. The guest must be stopped; nothing in it changes.
"""

from dataclasses import dataclass

from exogdb.errors import FormatError, UnavailableError
from exogdb.target.cpus import Cpu
from exogdb.target.memory import VirtualMemory
from exogdb.target.qemu.cpu_dump import CpuDump, parse_cpu_dumps
from exogdb.target.qemu.monitor import run_monitor
from exogdb.target.registers import read_register
from exogdb.x86.gdt import Gdt, decode_gdt
from exogdb.x86.idt import Gate, decode_idt, is_idt_unset
from exogdb.x86.paging import EFER_LMA
from exogdb.x86.selector import Selector
from exogdb.x86.tss import TSS_SIZE, Tss, decode_tss

__all__ = [
    "IdtReading",
    "TssReading",
    "has_tss",
    "read_cpu_dump",
    "read_gdt",
    "read_idt",
    "read_long_mode_dump",
    "read_tss",
]


@dataclass(frozen=True)
class IdtReading:
    """The IDT at `base`; `limit` is its size in bytes less one."""

    base: int
    limit: int
    gates: tuple[Gate, ...]


@dataclass(frozen=True)
class TssReading:
    """The TSS that TR names; `limit` is its size in bytes less one."""

    selector: int
    base: int
    limit: int
    tss: Tss


def read_cpu_dump(cpu: Cpu) -> CpuDump:
    """Descriptor-table registers, segments, CPL and HLT state of `cpu`, from QEMU's monitor.

    :raise UnavailableError: the monitor cannot be asked, or answers in a form that is not known.
    """
    try:
        dumps = parse_cpu_dumps(run_monitor("info registers -a"))
    except FormatError as error:
        raise UnavailableError(str(error)) from error
    if cpu.index not in dumps:
        raise UnavailableError(f"QEMU's monitor shows no CPU {cpu.index}")
    return dumps[cpu.index]


def read_long_mode_dump(cpu: Cpu) -> CpuDump:
    """The same for who decodes the tables: outside of long mode they have other forms, or are not used at all.

    :raise UnavailableError: `cpu` is not in long mode, or as for `read_cpu_dump`.
    """
    if not read_register(cpu, "efer") & EFER_LMA:
        raise UnavailableError(
            f"CPU {cpu.index} is not in long mode, and its descriptor tables have another form: "
            "let the kernel boot first"
        )
    return read_cpu_dump(cpu)


def read_gdt(memory: VirtualMemory, dump: CpuDump) -> Gdt:
    """The GDT of the CPU that `dump` and `memory` belong to.

    :raise MemoryFault: it is not mapped.
    """
    table = dump.segments["gdtr"]
    return decode_gdt(memory.read(table.base, table.limit + 1), table.base)


def read_idt(memory: VirtualMemory, dump: CpuDump) -> IdtReading:
    """The IDT of the CPU that `dump` and `memory` belong to.

    :raise MemoryFault: it is not mapped.
    :raise UnavailableError: the kernel has not executed LIDT.
    """
    table = dump.segments["idtr"]
    if is_idt_unset(table.base, table.limit):
        raise UnavailableError(
            f"CPU {dump.index} has no IDT: IDTR has base 0 and limit {table.limit:#x}, as before any LIDT"
        )
    return IdtReading(table.base, table.limit, decode_idt(memory.read(table.base, table.limit + 1)))


def has_tss(dump: CpuDump) -> bool:
    """Whether TR names a TSS. At reset, and until the kernel executes LTR, it is null."""
    return not Selector(dump.segments["tr"].selector).is_null


def read_tss(memory: VirtualMemory, dump: CpuDump) -> TssReading:
    """The TSS of the CPU that `dump` and `memory` belong to.

    :raise MemoryFault: it is not mapped.
    :raise UnavailableError: TR is null.
    """
    tr = dump.segments["tr"]
    if not has_tss(dump):
        raise UnavailableError(f"CPU {dump.index} has no TSS: TR is null")
    return TssReading(tr.selector, tr.base, tr.limit, decode_tss(memory.read(tr.base, TSS_SIZE)))
