"""`exo-msr read`: any MSR by name or number, by executing RDMSR in the guest."""

from argparse import ArgumentParser, Namespace

from exogdb.commands.msr import complete_msr, make_report, msr_output
from exogdb.commands.registry import Output, command
from exogdb.target.msr.msrs import Via
from exogdb.target.session import Session
from exogdb.x86.msr import parse_msr

__all__: list[str] = []


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="a name such as LSTAR, or a number such as 0x277")
    parser.add_argument("--all-cpus", action="store_true", help="one column for each CPU")


@command("exo-msr read", add_arguments=_add_arguments, complete={"NAME": complete_msr})
def exo_msr_read(session: Session, options: Namespace) -> Output:
    """Read any MSR by executing RDMSR in the guest, and say so.

    Usage: exo-msr read NAME|NUMBER ... [--all-cpus] [--json]

    One CPU at a time executes RDMSR; registers, code and stack are restored and
    compared afterwards. QEMU without hardware acceleration reads most MSRs that it
    does not know as 0: "0" is no proof that one exists.

    Example: exo-msr read 0xc0000082
    Example: exo-msr read misc_enable
    """
    specs = [parse_msr(name) for name in options.names]
    return msr_output(make_report(session, specs, every_cpu=options.all_cpus, via=Via.RDMSR))
