"""`exo-idt`: the interrupt descriptor table of the selected CPU."""

from argparse import ArgumentParser, Namespace

from exogdb.commands.registry import Output, command
from exogdb.errors import UsageError
from exogdb.target.registers import read_register
from exogdb.target.session import Session
from exogdb.target.symbols import find_symbols
from exogdb.target.tables import has_tss, read_gdt, read_idt, read_long_mode_dump, read_tss
from exogdb.view.idt import IdtReport, idt_to_json, render_idt
from exogdb.x86.address import linear_bits
from exogdb.x86.idt import EXCEPTIONS, Gate, check_gate

__all__: list[str] = []


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("vectors", nargs="*", metavar="VECTOR", help="numbers or names such as 14 or #PF")


def _choose(gates: tuple[Gate, ...], wanted: list[str]) -> list[Gate]:
    """The gates that `wanted` names; all that are present when it is empty.

    :raise UsageError: no such vector.
    """
    if not wanted:
        return [gate for gate in gates if gate.present]
    chosen = []
    for word in wanted:
        named = [gate for gate in gates if gate.name.lower().lstrip("#") == word.lower().lstrip("#")]
        number = int(word, 0) if word.isdigit() or word.lower().startswith("0x") else -1
        found = named if len(named) == 1 else [gate for gate in gates if gate.vector == number]
        if not found:
            raise UsageError(f"the IDT has no vector {word}: it has 0 to {len(gates) - 1}, and names such as #PF")
        chosen += found
    return chosen


def _complete(_token: str) -> list[str]:
    return [exception.mnemonic for exception in EXCEPTIONS.values()]


@command("exo-idt", add_arguments=_add_arguments, complete={"VECTOR": _complete})
def exo_idt(session: Session, options: Namespace) -> Output:
    """Show the IDT of this CPU: gate, DPL, stack, handler of each vector.

    Usage: exo-idt [VECTOR ...] [--json]

    Without VECTOR every present gate. A warning follows a gate that cannot work: a
    handler that is not canonical, a selector that is no 64-bit code segment for
    CPL 0, an IST entry that is 0. Nothing in the guest changes.

    Example: exo-idt
    Example: exo-idt #PF 0x80
    """
    dump = read_long_mode_dump(session.cpu)
    idt = read_idt(session.memory, dump)
    gdt = read_gdt(session.memory, dump)
    tss = read_tss(session.memory, dump).tss if has_tss(dump) else None
    bits = linear_bits(read_register(session.cpu, "cr4"))
    gates = _choose(idt.gates, options.vectors)
    found = find_symbols(gate.handler for gate in gates if gate.present)
    symbols = {handler: str(symbol) for handler, symbol in found.items()}
    findings = {
        gate.vector: check_gate(gate, gdt.find_descriptor(gate.selector), tss, bits)
        for gate in gates
        if gate.present
    }
    absent = 0 if options.vectors else len(idt.gates) - len(gates)
    report = IdtReport(session.cpu.index, idt.base, idt.limit, gates, absent, symbols, findings)
    return Output(lambda style: render_idt(report, style), lambda: idt_to_json(report))
