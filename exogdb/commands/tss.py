"""`exo-tss`: the task state segment of the selected CPU."""

from argparse import Namespace

from exogdb.commands.registry import Output, command
from exogdb.target.cpus import Cpu
from exogdb.target.paging import walk_address
from exogdb.target.session import Session
from exogdb.target.symbols import find_symbol_below
from exogdb.target.tables import read_idt, read_long_mode_dump, read_tss
from exogdb.view.tss import StackRow, TssReport, render_tss, tss_to_json
from exogdb.x86.idt import Gate
from exogdb.x86.word import MASK_64

__all__: list[str] = []


def _find_problem(cpu: Cpu, top: int) -> str:
    """Why the CPU could not push below `top`; empty if it could, and for a stack that is not set."""
    if top == 0:
        return ""
    walk = walk_address(cpu, top - 8 & MASK_64)
    if not walk.mapped:
        return f"not mapped ({walk.reason})"
    if walk.user:
        return "in a user page"
    return "" if walk.writable else "mapped read-only"


def _make_row(cpu: Cpu, name: str, top: int, gates: list[Gate]) -> StackRow:
    symbol = find_symbol_below(top) if top else None
    used_by = tuple(gate.name if gate.vector < 32 else f"{gate.vector:#x}" for gate in gates)
    return StackRow(name, top, str(symbol or ""), _find_problem(cpu, top), used_by)


@command("exo-tss")
def exo_tss(session: Session, _options: Namespace) -> Output:
    """Show the TSS of this CPU: RSP0, the ISTs, which vectors use them.

    Usage: exo-tss [--json]

    RSP0 is loaded when an interrupt arrives at CPL 3; an IST by the gates that
    name it. SYSCALL uses neither. A stack grows down: what is looked at is the 8
    bytes below each address. Nothing in the guest changes.

    Example: exo-tss
    """
    dump = read_long_mode_dump(session.cpu)
    reading, idt = read_tss(session.memory, dump), read_idt(session.memory, dump)
    # RSP0 is what gates without an IST switch to.
    named = [(f"RSP{n}", top, -n) for n, top in enumerate(reading.tss.rsp)]
    named += [(f"IST{n}", top, n) for n, top in enumerate(reading.tss.ist, start=1)]
    gates = [gate for gate in idt.gates if gate.present]
    rows = [
        _make_row(session.cpu, name, top, [gate for gate in gates if gate.ist == number])
        for name, top, number in named
    ]
    report = TssReport(
        session.cpu.index, reading.selector, reading.base, reading.limit, rows, reading.tss.iomap_base
    )
    return Output(lambda style: render_tss(report, style), lambda: tss_to_json(report))
