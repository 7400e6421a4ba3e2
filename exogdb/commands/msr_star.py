"""`exo-msr star`: which GDT descriptor each selector in IA32_STAR hits."""

from argparse import Namespace

from exogdb.commands.registry import Output, command
from exogdb.errors import UnavailableError
from exogdb.reading import Unavailable
from exogdb.target.msr.msrs import read_msrs
from exogdb.target.session import Session
from exogdb.target.tables import read_gdt, read_long_mode_dump
from exogdb.view.msr_star import StarReport, render_star, star_to_json
from exogdb.x86.msr import parse_msr
from exogdb.x86.star import check_star, decode_star

__all__: list[str] = []


@command("exo-msr star", is_name_too=True)
def exo_msr_star(session: Session, _options: Namespace) -> Output:
    """Draw IA32_STAR: which GDT entry each of its selectors hits.

    Usage: exo-msr star [--json]

    SYSCALL and SYSRET never look at the GDT: they load fixed descriptors. IRETQ
    and interrupts do look, later. So a wrong descriptor here breaks the kernel
    long after the mistake.

    Example: exo-msr star
    """
    spec = parse_msr("IA32_STAR")
    value = read_msrs([session.cpu], [spec])[session.cpu.index][spec.name]
    if isinstance(value, Unavailable):
        raise UnavailableError(f"IA32_STAR of CPU {session.cpu.index} is unavailable ({value.reason})")
    star, gdt = decode_star(value.value), read_gdt(session.memory, read_long_mode_dump(session.cpu))
    report = StarReport(session.cpu.index, star, value.source, gdt, check_star(star, gdt.find_descriptor))
    return Output(lambda style: render_star(report, style), lambda: star_to_json(report))
