"""`exo-gs`: which GS base is whose, and whether the right one is active."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable

from exogdb.abi.percpu import PerCpuBlock
from exogdb.commands.registry import Output, command
from exogdb.reading import Reading, Unavailable
from exogdb.target.cpus import Cpu, cpus_in_turn
from exogdb.target.gs import find_entries, read_gs
from exogdb.target.percpu import read_percpu
from exogdb.target.session import Session
from exogdb.target.symbols import Symbol, find_symbol, find_symbol_below
from exogdb.view.gs import CpuGs, gs_to_json, render_gs

__all__: list[str] = []


def _read_cpu(session: Session, cpu: Cpu, entry: int | None) -> CpuGs:
    bases = read_gs(cpu, entry)
    kernel = bases.report.kernel
    percpu: PerCpuBlock | Unavailable = Unavailable("which base is the kernel's is not known")
    if kernel is not None:
        percpu = read_percpu(session.memory_of(cpu), kernel, entry)
    held = set()
    if isinstance(percpu, PerCpuBlock):
        held = {field.value.value for field in percpu.fields if isinstance(field.value, Reading)}
    names = _name({bases.gs_base, bases.kernel_gs_base} | held, find_symbol)
    ends = _name({address for address in held if "+" not in names.get(address, "")}, find_symbol_below)
    return CpuGs(cpu.index, bases.cpl, bases.gs_base, bases.kernel_gs_base, bases.report, percpu, names, ends)


def _name(addresses: Iterable[int], find: Callable[[int], Symbol | None]) -> dict[int, str]:
    return {address: str(symbol) for address in addresses if address and (symbol := find(address))}


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--all-cpus", action="store_true", help="every CPU, not only the selected one")


@command("exo-gs", add_arguments=_add_arguments)
def exo_gs(session: Session, options: Namespace) -> Output:
    """Say which GS base is the kernel's, and if the right one is active.

    Usage: exo-gs [--all-cpus] [--json]

    The answer is one of: user, kernel, entry window (swapgs not yet executed),
    exit window, double-swapped, missing. It comes from CPL, from where RIP stands
    relative to every swapgs behind LSTAR, and from the two bases; `why` says how.
    Behind the kernel's base the per-CPU block is shown, by its debug-info type or
    by the offsets that the entry stub uses. Nothing in the guest changes.

    Example: exo-gs
    Example: exo-gs --all-cpus
    """
    cpus = session.cpus(options.all_cpus)
    entries = find_entries(cpus)
    rows = []
    with cpus_in_turn() as select:
        for cpu in cpus:
            select(cpu)
            rows.append(_read_cpu(session, cpu, entries.get(cpu.index)))
    return Output(lambda style: render_gs(rows, style), lambda: gs_to_json(rows))
