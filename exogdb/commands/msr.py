"""`exo-msr`: the MSRs that decide about SYSCALL, SYSRET and SWAPGS."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable

from exogdb.commands.registry import Output, command
from exogdb.reading import Reading
from exogdb.target.msr.msrs import Via, read_msrs
from exogdb.target.registers import read_register
from exogdb.target.session import Session
from exogdb.target.symbols import find_symbols
from exogdb.view.msr import MsrReport, msrs_to_json, render_msrs
from exogdb.x86.address import linear_bits
from exogdb.x86.msr import MSRS, SYSCALL_MSRS, MsrSpec, parse_msr

__all__ = ["complete_msr", "make_report", "msr_output"]


def complete_msr(token: str) -> Iterable[str]:
    """Names that can be typed for an MSR, in the case that `token` has; the long ones where it begins like one."""
    names = [spec.short for spec in MSRS] + [spec.name for spec in MSRS if len(token) > 1]
    return names if token.isupper() else [name.lower() for name in names]


def make_report(session: Session, specs: Iterable[MsrSpec], *, every_cpu: bool, via: Via) -> MsrReport:
    """Read `specs` on the selected or on every CPU, and name the addresses among them."""
    specs = list(specs)
    values = read_msrs(session.cpus(every_cpu), specs, via)
    bits = linear_bits(read_register(session.cpu, "cr4"))
    addresses = {
        value.value
        for row in values.values()
        for spec in specs
        if spec.holds == "address" and isinstance(value := row[spec.name], Reading) and value.value
    }
    symbols = {address: str(symbol) for address, symbol in find_symbols(addresses).items()}
    return MsrReport(specs, values, symbols, bits)


def msr_output(report: MsrReport) -> Output:
    """The report in both forms."""
    return Output(lambda style: render_msrs(report, style), lambda: msrs_to_json(report))


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="MSRs to show instead of the eight of SYSCALL")
    parser.add_argument("--all-cpus", action="store_true", help="one column for each CPU")
    parser.add_argument(
        "--via", type=str, choices=[via.value for via in Via], default=Via.BEST.value, help="where to read from"
    )


@command("exo-msr", add_arguments=_add_arguments, complete={"NAME": complete_msr})
def exo_msr(session: Session, options: Namespace) -> Output:
    """Show the MSRs of SYSCALL, SYSRET and SWAPGS: value, source, meaning.

    Usage: exo-msr [NAME ...] [--all-cpus] [--via best|quiet|gdb|qmp|rdmsr]
                   [--json]

    Without NAME: EFER, STAR, LSTAR, CSTAR, FMASK, FS_BASE, GS_BASE, KERNEL_GS_BASE
    of the selected CPU. Values come from the GDB stub, else from QEMU's device
    state (QMP); neither touches the guest. Without a QMP socket RDMSR is executed
    in the guest, which is then restored and compared; the output says so. `--via
    quiet` never does that.

    Example: exo-msr
    Example: exo-msr pat apic_base --all-cpus
    Example: exo-msr --via rdmsr
    """
    specs = [parse_msr(name) for name in options.names] or list(SYSCALL_MSRS)
    return msr_output(make_report(session, specs, every_cpu=options.all_cpus, via=Via(options.via)))
