"""Both GS bases of a CPU and what they mean right now."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from exogdb.abi.gs import GsPath, GsReport, diagnose_gs, find_gs_path
from exogdb.abi.gs_interrupt import InterruptWindows, find_interrupt_windows
from exogdb.abi.stub.disassembly import Disassembler
from exogdb.errors import AnalysisError, TargetLostError, UnavailableError
from exogdb.reading import Reading
from exogdb.target.analysed import analysed_paths
from exogdb.target.cpus import Cpu
from exogdb.target.memory import VirtualMemory
from exogdb.target.msr.msrs import Via, read_msrs
from exogdb.target.paging import walk_address
from exogdb.target.registers import read_cpl, read_register
from exogdb.target.symbols import find_addresses
from exogdb.target.tables import read_idt, read_long_mode_dump
from exogdb.x86.address import is_upper_half
from exogdb.x86.msr import parse_msr

__all__ = ["GsBases", "find_entries", "read_gs"]

# Tried in this order when LSTAR cannot be read without touching the guest.
_USUAL_NAMES = ("syscall_entry", "syscall_entry_asm", "entry_SYSCALL_64")


@dataclass(frozen=True)
class GsBases:
    """`gs_base` is active, `kernel_gs_base` waits behind SWAPGS; `report` says whose they are."""

    cpu: int
    cpl: int
    rip: int
    gs_base: int
    kernel_gs_base: int
    report: GsReport


def find_entries(cpus: Iterable[Cpu]) -> Mapping[int, int]:
    """Where SYSCALL goes, by CPU index: LSTAR, else a symbol with a usual name. CPUs without one are left out.

    LSTAR is read through QMP only, so that nothing in the guest changes.
    """
    lstar = parse_msr("IA32_LSTAR")
    guess = next(iter(find_addresses(_USUAL_NAMES).values()), None)
    found: dict[int, int] = {}
    for index, values in read_msrs(cpus, [lstar], Via.QMP).items():
        value = values[lstar.name]
        entry = value.value if isinstance(value, Reading) else guess
        if entry:
            found[index] = entry
    return found


def read_gs(cpu: Cpu, entry: int | None) -> GsBases:
    """The two bases of `cpu` and the oracle's answer. The guest must be stopped, and nothing in it changes.

    :raise UnavailableError: the stub does not have the bases.
    """
    cpl, rip = read_cpl(cpu), read_register(cpu, "rip")
    active, waiting = read_register(cpu, "gs_base"), read_register(cpu, "k_gs_base")
    path = None if entry is None else _find_path(cpu, entry)
    report = diagnose_gs(
        cpl, rip, active, waiting, path, lambda base: _is_kernel(cpu, base), lambda: _find_windows(cpu)
    )
    return GsBases(cpu.index, cpl, rip, active, waiting, report)


def _find_path(cpu: Cpu, entry: int) -> GsPath | None:
    try:
        return find_gs_path(Disassembler(VirtualMemory(cpu)), entry, _find_jumped_calls(entry))
    except AnalysisError:
        return None


def _find_jumped_calls(entry: int) -> dict[int, int]:
    """The dispatcher's call where the stub at `entry` pushes the return address itself and jumps, if it does."""
    found = (path.dispatcher for path in analysed_paths() if path.entry == entry and path.dispatcher is not None)
    return {each.call_address: each.return_address for each in found}


def _find_windows(cpu: Cpu) -> InterruptWindows | None:
    """Where code behind other entries than LSTAR's may run on the user's base; None if the IDT cannot be read."""
    memory = VirtualMemory(cpu)
    try:
        gates = read_idt(memory, read_long_mode_dump(cpu)).gates
    except TargetLostError:
        raise
    except UnavailableError:
        return None
    handlers = {gate.handler for gate in gates if gate.present}
    return find_interrupt_windows(Disassembler(memory), handlers, _find_entries_of_32_bit_code(cpu))


def _find_entries_of_32_bit_code(cpu: Cpu) -> set[int]:
    """Where SYSCALL and SYSENTER go from compatibility mode, as far as it can be read."""
    specs = [parse_msr(name) for name in ("IA32_CSTAR", "IA32_SYSENTER_EIP")]
    values = read_msrs([cpu], specs, Via.QMP)[cpu.index].values()
    return {value.value for value in values if isinstance(value, Reading) and value.value}


def _is_kernel(cpu: Cpu, base: int) -> bool | None:
    """Whether `base` belongs to the kernel: by the rights of its page, else by the half of the address space."""
    if base == 0:
        return None
    try:
        walk = walk_address(cpu, base)
    except TargetLostError:
        raise
    except UnavailableError:
        return is_upper_half(base) or None
    if walk.mapped:
        return not walk.user
    return is_upper_half(base) or None
