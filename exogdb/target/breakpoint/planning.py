"""The plan for the running kernel: where a breakpoint on each number costs least.

Nothing in the guest changes: its code and data are read through the GDB stub, RAM only, and emulated on a copy.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import gdb

from exogdb.abi.dispatch.place import Machine, Place, Plan, PlanCache
from exogdb.abi.dispatch.plan import plan_places
from exogdb.abi.dispatch.prologue import keeps_parameters_in_memory
from exogdb.abi.dispatch.route import find_routes
from exogdb.abi.dispatch.trace import DispatcherEntry
from exogdb.abi.frame_base import find_saved_number
from exogdb.abi.numbers import NumberTable
from exogdb.abi.section import Section
from exogdb.abi.stub.entry_path import Dispatcher, EntryPath
from exogdb.errors import AnalysisError, MemoryFault, UnavailableError
from exogdb.target.cpus import Cpu, all_cpus
from exogdb.target.image import read_kernel_sections
from exogdb.target.memory import VirtualMemory
from exogdb.target.numbers import read_number_table
from exogdb.target.path import read_entry_path
from exogdb.target.qemu.monitor import has_monitor, run_monitor
from exogdb.target.registers import read_register
from exogdb.target.symbols import find_address, find_symbol
from exogdb.target.with_setting import with_setting
from exogdb.x86.memory import ReadableMemory

__all__ = ["SyscallPlan", "find_first_line", "forget_plans", "read_place", "read_plan"]

_PAGE = 4096
_CONTRAST = 16  # numbers that one is told apart from when only its own way matters
_KERNEL_HALF = 1 << 63
_cache = PlanCache()


@dataclass(frozen=True)
class SyscallPlan:
    """The places of all numbers, and the path and dispatcher they are in. `may_watch`: watchpoints can be trusted.

    `doubts` are what the analysis of the entry path is not sure of.
    """

    places: Plan
    table: NumberTable
    dispatcher: Dispatcher
    path: EntryPath
    may_watch: bool
    doubts: tuple[str, ...] = ()


def read_plan(cpu: Cpu, more_numbers: Iterable[int] = ()) -> SyscallPlan:
    """Plan the table's numbers and `more_numbers` with `cpu`'s entry path and memory. The guest must be stopped.

    :raise AnalysisError: the stub calls no dispatcher that can be told, or the number gets lost on the way.
    :raise UnavailableError: the entry path cannot be read.
    """
    path = read_entry_path(cpu)
    dispatcher, entry = _require_dispatcher(path)
    table = read_number_table([entry.address])
    numbers = frozenset(number.number for number in table) | frozenset(more_numbers)
    machine = _read_machine()
    places = _make_plan(cpu, path, entry, numbers, machine)
    return SyscallPlan(places, table, dispatcher, path, may_watch=not machine.no_watching, doubts=path.doubts)


def read_place(cpu: Cpu, number: int) -> Place:
    """Where calls of `number` go, told apart from some other numbers only: a fraction of a whole plan's time.

    For somebody who follows one call anyway. The guest must be stopped; the errors are those of `read_plan`.
    """
    path = read_entry_path(cpu)
    _, entry = _require_dispatcher(path)
    others = sorted(each.number for each in read_number_table([entry.address]) if each.number != number)
    contrast = others[:: max(1, len(others) // _CONTRAST)]
    return _make_plan(cpu, path, entry, frozenset([number, *contrast]), _read_machine())[number]


def forget_plans() -> None:
    """Plan anew the next time, whether the code has changed or not."""
    _cache.clear()


def _make_plan(
    cpu: Cpu, path: EntryPath, entry: DispatcherEntry, numbers: frozenset[int], machine: Machine
) -> Plan:
    memory = _RamOnly(VirtualMemory(cpu))

    def make() -> Plan:
        routes = find_routes(memory, entry, numbers, _kernel_gs_base(cpu))
        # As the symbol functions have them: to change them for each of hundreds of names takes the longest.
        with with_setting("language", "c"), with_setting("max-value-size", None):
            named = {each.number: find_address(each.handler) for each in read_number_table([entry.address])}
            return plan_places(
                routes,
                entry,
                hot=path.states,
                first_line=partial(find_first_line, memory),
                handlers={number: address for number, address in named.items() if address is not None},
                machine=machine,
            )

    key = f"{_build_of_kernel()} {sorted(numbers)} {machine}"
    return _cache.get(VirtualMemory(cpu), key, entry, make)


def _read_machine() -> Machine:
    """What runs the guest's code, and what of it can be watched.

    QEMU's stub reports one CPU for each stop. A breakpoint that another CPU ran into at the same moment is still
    there when it goes on; a watched access is over by then, and lost (QEMU, `gdb_vm_state_change`).
    """
    if not gdb.parameter("can-use-hw-watchpoints"):
        return Machine("`set can-use-hw-watchpoints 0` forbids it")
    if not has_monitor():
        return Machine("the target is not QEMU, and may lose accesses")
    if "enabled" in run_monitor("info kvm"):
        return Machine("a CPU that runs under KVM has four watchpoints for everything", pages_cost=False)
    several = len(all_cpus()) > 1
    return Machine("with several CPUs QEMU loses accesses that happen at the same moment" if several else "")


def find_first_line(memory: ReadableMemory, address: int) -> int | None:
    """Where the body of the function that begins at `address` begins; None if no function is known to.

    Code that keeps its parameters in memory (a debug build) has them there only after the prologue. Optimised
    code has them in registers at its first instruction, and there the body is the function's first address.
    The code tells which it is: GDB says it only by `info scope`, which fails on debug info that it cannot read.
    """
    block = gdb.block_for_pc(address)
    while block is not None and block.superblock is not None and not block.superblock.is_static:
        block = block.superblock  # out of what was inlined
    if block is None or block.function is None or block.start != address:
        symbol = find_symbol(address)
        return address if symbol is not None and symbol.offset == 0 else None
    symtab = gdb.find_pc_line(address).symtab
    rows = symtab.linetable() if symtab is not None else ()
    body = min((row.pc for row in rows if address < row.pc < block.end and row.line > 0), default=address)
    parameters = sum(symbol.is_argument for symbol in block)
    return body if keeps_parameters_in_memory(memory, range(address, body), parameters) else address


def _require_dispatcher(path: EntryPath) -> tuple[Dispatcher, DispatcherEntry]:
    dispatcher = path.dispatcher
    if dispatcher is None or dispatcher.address is None:
        raise AnalysisError(f"the stub at {path.entry:#x} calls no dispatcher that its code tells", path.entry)
    if dispatcher.number is None:
        raise AnalysisError(
            f"the number does not reach the dispatcher at {dispatcher.address:#x}", dispatcher.address
        )
    known = []
    for location in dispatcher.arguments:
        if location is None:
            break
        known.append(location)
    saved = find_saved_number(path)
    return dispatcher, DispatcherEntry(dispatcher.address, dispatcher.number, tuple(known), saved)


def _kernel_gs_base(cpu: Cpu) -> int:
    """The per-CPU block: of the two bases the one in the kernel's half; 0 if neither is."""
    for name in ("gs_base", "k_gs_base"):
        try:
            base = read_register(cpu, name)
        except UnavailableError:
            continue
        if base & _KERNEL_HALF:
            return base
    return 0


def _build_of_kernel() -> str:
    progspace = gdb.current_progspace()
    name = progspace.filename if progspace is not None else None
    if name is None:
        return ""
    build_id = next((o.build_id for o in gdb.objfiles() if o.filename == name and o.build_id), None)
    if build_id is not None:
        return build_id
    path = Path(name)
    return f"{name} {path.stat().st_mtime_ns if path.exists() else 0}"


class _RamOnly:
    """Refuses pages that are not RAM: a load from a device's register could change the device.

    QEMU is asked. Of any other target nothing is known to be RAM but the kernel's own image.
    """

    def __init__(self, memory: VirtualMemory) -> None:
        self._memory = memory
        self._image = None if has_monitor() else _read_image()
        self._is_ram = cache(_is_ram)

    def read(self, address: int, size: int) -> bytes:
        """As `exogdb.x86.memory.ReadableMemory`, whole pages or parts of one."""
        page = address & -_PAGE
        is_ram = self._is_ram(page) if self._image is None else any(address in part for part in self._image)
        if not is_ram:
            raise MemoryFault(address, size, f"{address:#x} is not RAM")
        return self._memory.read(address, size)


def _read_image() -> tuple[Section, ...]:
    try:
        return read_kernel_sections(None)
    except UnavailableError:
        return ()


def _is_ram(address: int) -> bool:
    physical = run_monitor(f"gva2gpa {address:#x}").partition("gpa: ")[2].strip()
    return bool(physical) and run_monitor(f"gpa2hva {physical}").startswith("Host virtual address")
