"""`exo-msr write`: set an MSR, by executing WRMSR in the guest."""

from argparse import ArgumentParser, Namespace

import gdb

from exogdb.commands.confirm import is_confirmed
from exogdb.commands.msr import complete_msr
from exogdb.commands.registry import Output, command
from exogdb.errors import UsageError
from exogdb.reading import Unavailable, Value
from exogdb.target.cpus import Cpu
from exogdb.target.msr.msrs import Via, read_msrs
from exogdb.target.msr.rdmsr import write_msr_in_guest
from exogdb.target.session import Session
from exogdb.view.msr_write import MsrChange, change_to_json, render_change
from exogdb.x86.msr import MsrSpec, parse_msr
from exogdb.x86.word import MASK_64

__all__: list[str] = []


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a name such as LSTAR, or a number such as 0x277")
    parser.add_argument("value", metavar="VALUE", help="a number or an expression that GDB can evaluate")


def _evaluate(expression: str) -> int:
    """The bits of a number, or of what GDB makes of `expression`; a negative number is its two's complement."""
    try:
        value = int(expression, 0)
    except ValueError:
        value = _evaluate_by_gdb(expression)
    if not -1 << 63 <= value < 1 << 64:
        raise UsageError(f"{expression} has {value.bit_length()} bits, an MSR 64")
    return value & MASK_64


def _evaluate_by_gdb(expression: str) -> int:
    try:
        return int(gdb.parse_and_eval(expression))
    except gdb.error as error:
        raise UsageError(f"{expression!r} is no 64-bit value: {error}") from error


def _read(cpu: Cpu, spec: MsrSpec) -> Value:
    return read_msrs([cpu], [spec], Via.RDMSR)[cpu.index][spec.name]


@command("exo-msr write", add_arguments=_add_arguments, complete={"NAME": complete_msr})
def exo_msr_write(session: Session, options: Namespace) -> Output:
    """Write an MSR by executing WRMSR in the guest, after asking.

    Usage: exo-msr write NAME|NUMBER VALUE [--json]

    This changes the guest for good, so it asks first (`set confirm off` stops
    that). Everything but the MSR is restored and compared afterwards. A value that
    the CPU refuses (#GP) is reported, and changes nothing.

    Example: exo-msr write fmask 0x47700
    """
    spec, value = parse_msr(options.name), _evaluate(options.value)
    cpu = session.cpu
    question = f"Write {value:#x} to {spec.name} of CPU {cpu.index}, by executing WRMSR in the guest?"
    if not is_confirmed(question):
        raise UsageError(f"{spec.name} was not written")
    before = _read(cpu, spec)
    if isinstance(before, Unavailable):
        raise UsageError(f"{spec.name} is unavailable ({before.reason}): not written")
    write_msr_in_guest(cpu, spec.number, value)
    change = MsrChange(spec, cpu.index, value, before, _read(cpu, spec))
    return Output(lambda style: render_change(change, style), lambda: change_to_json(change))
