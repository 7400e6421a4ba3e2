"""Reading one CPU's share of the doctor's facts: registers, descriptor tables, stacks, and their pages."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from exogdb.abi.check.facts import LARGEST_STACK, CpuFacts, Span
from exogdb.abi.check.isolation import entry_addresses
from exogdb.abi.check.memory import gs_slots
from exogdb.abi.check.stacks import stack_addresses, stack_tops
from exogdb.abi.check.sysret import last_user_page
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.abi.stub.symbolic import Gs
from exogdb.errors import FormatError, TargetLostError, UnavailableError
from exogdb.reading import Reading, Unavailable, Value, note
from exogdb.target.cpus import Cpu
from exogdb.target.isolation import PageTables, find_page_tables
from exogdb.target.page_tables import AddressSpace, walk
from exogdb.target.qemu.vmstate_x86 import SegmentRegister
from exogdb.target.registers import register_value
from exogdb.x86.address import is_upper_half
from exogdb.x86.gdt import decode_gdt
from exogdb.x86.idt import decode_idt, is_idt_unset
from exogdb.x86.memory import ReadableMemory
from exogdb.x86.paging import PageWalk
from exogdb.x86.selector import Selector
from exogdb.x86.tss import TSS_SIZE, decode_tss

__all__ = ["read_cpu_facts"]

_T = TypeVar("_T")
_REGISTERS = ("cr0", "cr3", "cr4", "rsp", "rip", "cs")
_ENTRY_POINTS = ("IA32_LSTAR", "IA32_CSTAR", "IA32_SYSENTER_EIP")
_LARGEST_IDT = 4096


def read_cpu_facts(
    cpu: Cpu,
    memory: ReadableMemory,
    loaded: AddressSpace,
    segments: Mapping[str, SegmentRegister] | Unavailable,
    msrs: Mapping[str, Value],
    path: EntryPath | Unavailable,
) -> tuple[CpuFacts, PageTables]:
    """The facts about `cpu`, and its page tables. `memory` is what it sees, `path` the code behind its LSTAR.

    `segments` has the hidden part of tr, gdtr and idtr. Nothing in the guest changes.
    """
    registers = {name: register_value(cpu, name) for name in _REGISTERS}
    kernel_gs = _find_kernel_gs(registers, msrs, path)
    tables = find_page_tables(cpu, loaded, kernel_gs, path)
    facts = CpuFacts(
        index=cpu.index,
        registers=registers | _read_table_registers(segments),
        msrs=msrs,
        gdt=_read_table(segments, "gdtr", memory, lambda data, base: decode_gdt(data, base)),
        idt=_read_table(segments, "idtr", memory, lambda data, base: decode_idt(data)),
        tss=_read_table(segments, "tr", memory, lambda data, base: decode_tss(data)),
        kernel_gs=kernel_gs,
        kernel_rsp=_read_kernel_rsp(kernel_gs, path, tables.kernel),
        pages={},
        spans=_read_spans(segments),
    )
    return replace(
        facts,
        pages={address: walk(tables.kernel, address) for address in _wanted_pages(facts, path)},
        user_pages=_walk_user_pages(facts, tables.user, path),
        depths={top: _measure_depth(tables.kernel, top) for top in stack_tops(facts)},
    ), tables


def _walk_user_pages(
    facts: CpuFacts, space: AddressSpace | Unavailable | None, path: EntryPath | Unavailable
) -> Mapping[int, PageWalk | Unavailable] | Unavailable | None:
    if isinstance(path, Unavailable):
        return path
    if space is None or isinstance(space, Unavailable):
        return space
    return {address: space.walk(address) for address in entry_addresses(facts, path)}


def _wanted_pages(facts: CpuFacts, path: EntryPath | Unavailable) -> frozenset[int]:
    values = (*(facts.msrs.get(name) for name in _ENTRY_POINTS), facts.kernel_gs)
    known = {value.value for value in values if isinstance(value, Reading)}
    last_pages = {last_user_page(bits) for bits in (48, 57)}
    spans = () if isinstance(facts.spans, Unavailable) else facts.spans.values()
    tables = {page for span in spans for page in span.pages}
    return stack_addresses(facts) | gs_slots(facts, path) | known | last_pages | tables


def _read_spans(segments: Mapping[str, SegmentRegister] | Unavailable) -> Mapping[str, Span] | Unavailable:
    if isinstance(segments, Unavailable):
        return segments
    sizes = {"gdtr": 1 << 16, "idtr": _LARGEST_IDT, "tr": TSS_SIZE}
    return {
        name: Span(segments[name].base, min(segments[name].limit, size - 1))
        for name, size in sizes.items()
        if not _why_there_is_none(name, segments[name])
    }


def _measure_depth(space: AddressSpace | Unavailable, top: int) -> int | Unavailable | None:
    """How many bytes below `top` can be written without a hole; None for more than `LARGEST_STACK`."""
    address = top
    while top - address <= LARGEST_STACK:
        page = walk(space, (address - 1) % (1 << 64))
        if isinstance(page, Unavailable):
            return page
        if not page.mapped or not page.writable:
            return top - address
        address = (address - 1) & -page.size
    return None


def _read_table_registers(segments: Mapping[str, SegmentRegister] | Unavailable) -> dict[str, Value]:
    if isinstance(segments, Unavailable):
        return dict.fromkeys(("tr", "idtr.base", "idtr.limit"), segments)
    tr, idtr = segments["tr"], segments["idtr"]
    values = {"tr": tr.selector, "idtr.base": idtr.base, "idtr.limit": idtr.limit}
    return {name: Reading(value, "monitor") for name, value in values.items()}


def _why_there_is_none(name: str, register: SegmentRegister) -> str:
    """Why no table is where that register points to: the kernel has not loaded it; else empty."""
    if name == "tr" and Selector(register.selector).is_null:
        return "TR is null: there is no TSS yet (EXO024)"
    if name == "idtr" and is_idt_unset(register.base, register.limit):
        return "LIDT was never executed: there is no IDT yet (EXO028)"
    return ""


def _read_table(
    segments: Mapping[str, SegmentRegister] | Unavailable,
    name: str,
    memory: ReadableMemory,
    decode: Callable[[bytes, int], _T],
) -> _T | Unavailable:
    """The table that a system segment register points at, decoded."""
    if isinstance(segments, Unavailable):
        return segments
    register = segments[name]
    if reason := _why_there_is_none(name, register):
        return Unavailable(reason)
    size = TSS_SIZE if name == "tr" else min(register.limit + 1, 1 << 16 if name == "gdtr" else _LARGEST_IDT)
    try:
        return decode(memory.read(register.base, size), register.base)
    except TargetLostError:
        raise
    except (UnavailableError, FormatError) as error:
        return Unavailable(f"the table behind {name.upper()} at {register.base:#x} cannot be read: {error}")


def _find_kernel_gs(
    registers: Mapping[str, Value], msrs: Mapping[str, Value], path: EntryPath | Unavailable
) -> Value:
    """The kernel's GS base: the waiting one in user mode and before `swapgs`, else the active one.

    An exception handler may stand before its own `swapgs`; then the active base is a user's, in the lower half.
    """
    active, waiting = msrs["IA32_GS_BASE"], msrs["IA32_KERNEL_GS_BASE"]
    cs, rip = registers["cs"], registers["rip"]
    if isinstance(cs, Unavailable) or isinstance(rip, Unavailable):
        return Unavailable("the privilege level is not known, so neither is whose GS base is active")
    if cs.value & 3 == 3:
        return waiting
    stub_state = None if isinstance(path, Unavailable) else path.state_at(rip.value)
    if stub_state is not None and stub_state.gs is not Gs.UNKNOWN:
        return active if stub_state.gs is Gs.KERNEL else waiting
    if isinstance(active, Reading) and not is_upper_half(active.value):
        is_swapped = isinstance(waiting, Reading) and is_upper_half(waiting.value)
        return (
            waiting if is_swapped else Unavailable("neither GS base is in the upper half: which is the kernel's?")
        )
    return active


def _read_kernel_rsp(
    kernel_gs: Value, path: EntryPath | Unavailable, memory: ReadableMemory | Unavailable
) -> Value:
    if isinstance(path, Unavailable):
        return path
    if path.kernel_rsp_slot is None:
        return Unavailable("the entry stub does not take its stack from a per-CPU slot that could be followed")
    if isinstance(kernel_gs, Unavailable):
        return kernel_gs
    if isinstance(memory, Unavailable):
        return memory
    try:
        data = memory.read((kernel_gs.value + path.kernel_rsp_slot) % (1 << 64), 8)
    except UnavailableError as error:
        return note(error)
    return Reading(int.from_bytes(data, "little"), "memory")
