"""Reading everything that the doctor looks at from a stopped guest.

Nothing in the guest changes, except that `read_msrs` executes RDMSR in it where there is no QMP.

One QMP round trip gives the MSRs of all CPUs, another the CPU model, QEMU's monitor where the tables are; the rest
is memory. Page tables are read by physical address, once each. What cannot be read is `Unavailable` in the facts.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import gdb

from exogdb.abi.check.facts import CpuFacts, EntryFacts, Facts, SignatureParameter
from exogdb.abi.check.gates import window_handlers
from exogdb.abi.check.memory import section_pages
from exogdb.abi.gs_test import find_gs_sign_test
from exogdb.abi.section import Section
from exogdb.abi.stub.entry import find_entry_path
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.abi.vector_use import find_aligned_stack_use
from exogdb.errors import AnalysisError, FormatError, MemoryFault, MonitorError, UnavailableError
from exogdb.reading import Reading, Unavailable, Value, note
from exogdb.target.check.check_cpu import read_cpu_facts
from exogdb.target.cpus import Cpu, all_cpus
from exogdb.target.image import read_kernel_sections
from exogdb.target.msr.msrs import read_msrs
from exogdb.target.page_tables import AddressSpace, PageTableMemory, walk
from exogdb.target.qemu.cpu_dump import parse_cpu_dumps
from exogdb.target.qemu.cpu_model import read_cpu_model
from exogdb.target.qemu.monitor import run_monitor
from exogdb.target.qemu.vmstate_x86 import SegmentRegister
from exogdb.target.registers import read_register
from exogdb.target.session import Session
from exogdb.target.symbols import find_symbols
from exogdb.x86.msr import SYSCALL_MSRS, parse_msr
from exogdb.x86.page_scan import MappedPage, scan_upper_half
from exogdb.x86.paging import PageWalk

__all__ = ["read_facts", "read_signature"]

_EFER_LMA = 1 << 10
_FEATURES = ("smep", "smap", "umip")
_MSRS = (*SYSCALL_MSRS, *map(parse_msr, ("IA32_SYSENTER_CS", "IA32_SYSENTER_EIP")))
_MOST_IMAGE_PAGES = 1 << 15
_PAGE = 4096
_CODE_SIZE = 1 << 16

# LSTAR's value, the CPUs that have it, the code behind it.
_SharedPath: TypeAlias = tuple[int, list[Cpu], EntryPath | Unavailable]


def read_facts(session: Session) -> Facts:
    """Everything that `exogdb.abi.check.RULES` ask for. The guest must be stopped; see above for what changes.

    :raise UnavailableError: no CPU is in long mode.
    :raise exogdb.errors.TargetLostError: the connection broke.
    """
    everything = all_cpus()
    cpus = [cpu for cpu in everything if read_register(cpu, "efer") & _EFER_LMA]
    if not cpus:
        raise UnavailableError("no CPU is in long mode: let the kernel boot first, best until a program runs")
    segments = _read_segments()
    msrs = read_msrs(cpus, _MSRS)
    tables = PageTableMemory(session.physical)
    loaded = {cpu.index: AddressSpace.loaded_by(cpu, tables) for cpu in cpus}
    paths = _read_paths(session, cpus, msrs, loaded)
    facts: dict[int, CpuFacts] = {}
    kernel: dict[int, AddressSpace | Unavailable] = {}
    for cpu in cpus:
        path = next((path for _, users, path in paths if cpu in users), Unavailable("IA32_LSTAR is unavailable"))
        own = segments if isinstance(segments, Unavailable) else segments[cpu.index]
        memory = session.memory_of(cpu)
        facts[cpu.index], found = read_cpu_facts(cpu, memory, loaded[cpu.index], own, msrs[cpu.index], path)
        kernel[cpu.index] = found.kernel
    entries = tuple(_make_entry(lstar, users, path, kernel[users[0].index]) for lstar, users, path in paths)
    sections = _read_sections(entries)
    space = kernel.get(session.cpu.index, kernel[cpus[0].index])
    return Facts(
        cpus=tuple(facts.values()),
        entries=entries,
        model=read_cpu_model(_FEATURES),
        sections=sections,
        image_pages=_walk_image(sections, space),
        kernel_pages=_scan_kernel(space),
        names=_read_names(facts.values(), entries),
        gs_tests=_find_gs_tests(facts.values(), kernel),
        left_out=tuple(cpu.index for cpu in everything if cpu not in cpus),
    )


def _read_segments() -> Mapping[int, Mapping[str, SegmentRegister]] | Unavailable:
    """The segment and table registers of every CPU, by CPU index."""
    try:
        dumps = parse_cpu_dumps(run_monitor("info registers -a"))
    except (MonitorError, FormatError) as error:
        return Unavailable(str(error))
    return {index: dump.segments for index, dump in dumps.items()}


def _read_paths(
    session: Session, cpus: list[Cpu], msrs: Mapping[int, Mapping[str, Value]], loaded: Mapping[int, AddressSpace]
) -> list[_SharedPath]:
    sharing: dict[int, list[Cpu]] = defaultdict(list)
    for cpu in cpus:
        lstar = msrs[cpu.index]["IA32_LSTAR"]
        if isinstance(lstar, Reading):
            sharing[lstar.value].append(cpu)
    return [
        (lstar, users, _read_path(session, users[0], lstar, loaded[users[0].index]))
        for lstar, users in sorted(sharing.items())
    ]


def _make_entry(
    lstar: int, users: list[Cpu], path: EntryPath | Unavailable, memory: AddressSpace | Unavailable
) -> EntryFacts:
    indexes = tuple(cpu.index for cpu in users)
    return EntryFacts(lstar, indexes, path, read_signature(path), _find_aligned_stack_use(path, memory))


def _read_path(session: Session, cpu: Cpu, lstar: int, space: AddressSpace) -> EntryPath | Unavailable:
    """The entry path, unless LSTAR leads to what is no kernel code: the rules about LSTAR report that."""
    if lstar == 0:
        return Unavailable("IA32_LSTAR is 0: the kernel has not set a system-call entry yet (EXO005)")
    page = space.walk(lstar)
    if isinstance(page, Unavailable):
        return page
    if not page.mapped or page.user:
        return Unavailable("IA32_LSTAR does not lead to kernel code (EXO002 to EXO004)")
    try:
        return find_entry_path(session.memory_of(cpu), lstar)
    except UnavailableError as error:
        return note(error)
    except AnalysisError as error:
        return Unavailable(str(error))


def _find_aligned_stack_use(
    path: EntryPath | Unavailable, memory: AddressSpace | Unavailable
) -> int | Unavailable | None:
    """Looked for only where the answer matters: behind a stub that does not align the stack to 16."""
    if isinstance(path, Unavailable) or path.dispatcher is None or path.dispatcher.is_aligned:
        return Unavailable("not looked for")
    if isinstance(memory, Unavailable):
        return memory
    start = path.dispatcher.address
    if start is None:
        return Unavailable("the dispatcher's address is not known")
    code = b""
    try:
        while len(code) < _CODE_SIZE:
            at = start + len(code)
            code += memory.read(at, _PAGE - at % _PAGE)
    except MemoryFault as error:
        if not code:
            return note(error)
        # else it is the end of what is mapped
    return find_aligned_stack_use(code, start)


def read_signature(path: EntryPath | Unavailable) -> tuple[SignatureParameter, ...] | Unavailable:
    """The dispatcher's parameters by debug info. Nothing is read from the guest."""
    if isinstance(path, Unavailable):
        return path
    address = path.dispatcher.address if path.dispatcher is not None else None
    block = gdb.block_for_pc(address) if address is not None else None
    while block is not None and block.function is None:
        block = block.superblock
    if block is None or block.start != address:
        return Unavailable("there is no debug info for the dispatcher")
    return tuple(_parameter(symbol) for symbol in block if symbol.is_argument)


def _parameter(symbol: gdb.Symbol) -> SignatureParameter:
    kind = symbol.type.strip_typedefs() if symbol.type is not None else None
    if kind is None:
        return SignatureParameter(symbol.name, 0, is_pointer=False)
    is_pointer = kind.code in (gdb.TYPE_CODE_PTR, gdb.TYPE_CODE_REF)
    return SignatureParameter(symbol.name, kind.sizeof, is_pointer, _fields(kind.target()) if is_pointer else ())


def _fields(kind: gdb.Type) -> tuple[tuple[str, int], ...]:
    """Name and offset of the fields of a structure, none for any other type."""
    structure = kind.strip_typedefs()
    if structure.code != gdb.TYPE_CODE_STRUCT:
        return ()
    placed = ((each.name, each.bitpos) for each in structure.fields())
    return tuple((name, bits // 8) for name, bits in placed if name and bits is not None)


def _read_sections(entries: Iterable[EntryFacts]) -> tuple[Section, ...] | Unavailable:
    try:
        return read_kernel_sections(next((entry.lstar for entry in entries), None))
    except UnavailableError as error:
        return note(error)


def _walk_image(
    sections: tuple[Section, ...] | Unavailable, space: AddressSpace | Unavailable
) -> Mapping[int, PageWalk | Unavailable]:
    if isinstance(sections, Unavailable):
        return {}
    pages = sorted({page for section in sections for page in section_pages(section)})
    return {page: walk(space, page) for page in pages[:_MOST_IMAGE_PAGES]}


def _scan_kernel(space: AddressSpace | Unavailable) -> tuple[MappedPage, ...] | Unavailable:
    if isinstance(space, Unavailable):
        return space
    try:
        return tuple(scan_upper_half(space.tables, space.cr3, space.cr4, space.efer))
    except UnavailableError as error:
        return note(error)


def _find_gs_tests(
    cpus: Iterable[CpuFacts], memories: Mapping[int, AddressSpace | Unavailable]
) -> Mapping[int, int | Unavailable | None]:
    """Looked for only where user programs can set the GS base themselves."""
    wanted = {handler: memories[cpu.index] for cpu in cpus for handler in window_handlers(cpu)}
    return {handler: _find_gs_test(memory, handler) for handler, memory in wanted.items()}


def _find_gs_test(memory: AddressSpace | Unavailable, handler: int) -> int | Unavailable | None:
    if isinstance(memory, Unavailable):
        return memory
    try:
        return find_gs_sign_test(memory, handler)
    except UnavailableError as error:
        return note(error)
    except AnalysisError as error:
        return Unavailable(str(error))


def _read_names(cpus: Iterable[CpuFacts], entries: Iterable[EntryFacts]) -> Mapping[int, str]:
    """Symbols of every address that a finding can name."""
    addresses = {entry.lstar for entry in entries}
    addresses |= {value.value for cpu in cpus for value in cpu.msrs.values() if isinstance(value, Reading)}
    for entry in entries:
        if not isinstance(entry.path, Unavailable):
            addresses |= entry.path.states.keys()
            addresses |= {entry.aligned_stack_use} if isinstance(entry.aligned_stack_use, int) else set()
            if entry.path.dispatcher is not None and entry.path.dispatcher.address is not None:
                addresses.add(entry.path.dispatcher.address)
    return {address: str(symbol) for address, symbol in find_symbols(addresses).items()}
