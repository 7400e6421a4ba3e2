"""`exo-gdt`: the global descriptor table of the selected CPU."""

from argparse import Namespace
from collections.abc import Mapping

from exogdb.commands.registry import Output, command
from exogdb.reading import Reading
from exogdb.target.msr.msrs import Via, read_msrs
from exogdb.target.qemu.cpu_dump import CpuDump
from exogdb.target.session import Session
from exogdb.target.tables import read_gdt, read_long_mode_dump
from exogdb.view.gdt import GdtReport, gdt_to_json, render_gdt
from exogdb.x86.msr import parse_msr
from exogdb.x86.selector import Selector
from exogdb.x86.star import decode_star

__all__: list[str] = []


def _loaded(dump: CpuDump) -> Mapping[int, tuple[str, ...]]:
    """Names of the segment registers by byte offset of the descriptor that their selector names."""
    found: dict[int, tuple[str, ...]] = {}
    for name, segment in dump.segments.items():
        selector = Selector(segment.selector)
        if not selector.is_null and not selector.in_ldt:
            found[selector.offset] = (*found.get(selector.offset, ()), name.upper())
    return found


def _star_uses(session: Session) -> Mapping[int, tuple[str, ...]]:
    """What SYSCALL and SYSRET load, by byte offset; empty when STAR cannot be read without touching the guest."""
    spec = parse_msr("IA32_STAR")
    value = read_msrs([session.cpu], [spec], Via.QMP)[session.cpu.index][spec.name]
    found: dict[int, tuple[str, ...]] = {}
    if isinstance(value, Reading):
        for load in decode_star(value.value).loads:
            use = f"{load.instruction} {load.register}"
            found[load.selector.offset] = (*found.get(load.selector.offset, ()), use)
    return found


@command("exo-gdt")
def exo_gdt(session: Session, _options: Namespace) -> Output:
    """Show the GDT of this CPU: what each selector hits, and what uses it.

    Usage: exo-gdt [--json]

    `used by` names the segment registers that hold the selector now, and SYSCALL
    and SYSRET where STAR names it. Nothing in the guest changes.

    Example: exo-gdt
    """
    dump = read_long_mode_dump(session.cpu)
    gdt = read_gdt(session.memory, dump)
    report = GdtReport(session.cpu.index, gdt, _loaded(dump), _star_uses(session))
    return Output(lambda style: render_gdt(report, style), lambda: gdt_to_json(report))
