"""`exo-msr lstar`: the code that the next SYSCALL runs."""

import linecache
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from itertools import islice

import gdb

from exogdb.abi.stub.disassembly import Disassembler
from exogdb.commands.registry import Output, command
from exogdb.errors import AnalysisError, MemoryFault, UnavailableError
from exogdb.reading import Unavailable
from exogdb.target.cpus import Cpu
from exogdb.target.msr.msrs import read_msrs
from exogdb.target.paging import walk_address
from exogdb.target.registers import read_register
from exogdb.target.session import Session
from exogdb.target.symbols import find_source_line, find_symbol
from exogdb.view.msr_lstar import CodeLine, LstarReport, lstar_to_json, render_lstar
from exogdb.x86.address import is_canonical, linear_bits
from exogdb.x86.msr import parse_msr
from exogdb.x86.paging import CR4_SMEP

__all__: list[str] = []


def _find_problems(cpu: Cpu, entry: int, cr4: int) -> list[str]:
    """Why SYSCALL would fail or be unsafe with that target."""
    bits = linear_bits(cr4)
    if entry == 0:
        return ["LSTAR is 0, as after reset: SYSCALL would jump to address 0"]
    if not is_canonical(entry, bits):
        return [
            f"not canonical with {bits}-bit linear addresses: SYSCALL would raise #GP at CPL 0 with the user's RSP"
        ]
    walk = walk_address(cpu, entry)
    if not walk.mapped:
        return [f"not mapped ({walk.reason}): SYSCALL would raise #PF at CPL 0 with the user's RSP"]
    problems = ["its page is not executable: SYSCALL would raise #PF"] if walk.nx else []
    if walk.user and cr4 & CR4_SMEP:
        problems.append("its page is a user page, which SMEP keeps CPL 0 from executing: SYSCALL would raise #PF")
    elif walk.user:
        problems.append("its page is accessible from ring 3: user code can read it, or write it if it is writable")
    if walk.writable:
        problems.append("its page is writable: W^X does not protect the entry")
    return problems


def _read_code(session: Session, entry: int) -> Iterator[CodeLine]:
    code, address = Disassembler(session.memory), entry
    while True:
        try:
            instruction = code.at(address)
        except (AnalysisError, MemoryFault):
            return
        line, symbol = find_source_line(address), find_symbol(address)
        text = _source_text(address) if line else ""
        yield CodeLine(address, str(symbol or ""), instruction.text, str(line or ""), text)
        address = instruction.next


def _source_text(address: int) -> str:
    """The line of source, empty where the file is not on this machine."""
    line = gdb.find_pc_line(address)
    return "" if line.symtab is None else linecache.getline(line.symtab.fullname(), line.line).strip()


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=12, metavar="N", help="instructions to show")


@command("exo-msr lstar", add_arguments=_add_arguments, is_name_too=True)
def exo_msr_lstar(session: Session, options: Namespace) -> Output:
    """Show what the next SYSCALL runs: the code behind LSTAR.

    Usage: exo-msr lstar [--count N] [--json]

    With source lines where debug info has them. A warning follows where the target
    is not canonical, not mapped, not executable, writable, or a user page.

    Example: exo-msr lstar
    Example: exo-msr lstar --count 40
    """
    spec = parse_msr("IA32_LSTAR")
    value = read_msrs([session.cpu], [spec])[session.cpu.index][spec.name]
    if isinstance(value, Unavailable):
        raise UnavailableError(f"IA32_LSTAR of CPU {session.cpu.index} is unavailable ({value.reason})")
    code = tuple(islice(_read_code(session, value.value), max(options.count, 1))) if value.value else ()
    problems = _find_problems(session.cpu, value.value, read_register(session.cpu, "cr4"))
    report = LstarReport(session.cpu.index, value.value, value.source, code, problems)
    return Output(lambda style: render_lstar(report, style), lambda: lstar_to_json(report))
