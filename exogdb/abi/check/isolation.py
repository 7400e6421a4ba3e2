"""The rule about page-table isolation: what runs before the stub has switched CR3 needs the user's page tables."""

from collections.abc import Iterator, Mapping

from exogdb.abi.check.facts import CpuFacts, Facts, known
from exogdb.abi.check.rule import Finding, NotChecked, Outcome, Rule, Severity, each_cpu
from exogdb.abi.check.stacks import ENCRYPTED_GUESTS_ONLY, describe_tops, used_ists
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.reading import Reading, Unavailable

__all__ = ["ISOLATION_RULES", "entry_addresses"]

_TABLES = {"gdtr": "the GDT", "idtr": "the IDT", "tr": "the TSS"}


def entry_addresses(cpu: CpuFacts, path: EntryPath) -> Mapping[int, str]:
    """What the CPU touches with the user's page tables loaded: addresses, and what is there.

    From SYSCALL to the switch the stub's code and per-CPU slots; behind the switch on the way out its last
    instructions; for an interrupt in user mode the descriptor tables and the stacks in the TSS.
    """
    wanted = {path.entry: "the entry stub"}
    for switch in path.cr3_switches:
        wanted[switch.address] = "the switch of page tables"
    wanted |= {exit_.address: f"the {exit_.kind.upper()}" for exit_ in path.exits}
    if isinstance(cpu.kernel_gs, Reading):
        wanted |= {cpu.kernel_gs.value + slot: f"gs:[{slot:#x}]" for slot in _early_slots(path)}
    if not isinstance(cpu.spans, Unavailable):
        for name, span in cpu.spans.items():
            wanted |= dict.fromkeys((span.base, *span.pages[1:]), _TABLES[name])
    return wanted | {top - 8: what for top, what in describe_tops(cpu).items() if what in _stacks_in_tss(cpu)}


def _stacks_in_tss(cpu: CpuFacts) -> set[str]:
    """RSP0, and the IST slots of what can be raised here."""
    slots = {} if isinstance(cpu.idt, Unavailable) else used_ists(cpu)
    usable = {ist for ist, vectors in slots.items() if not ENCRYPTED_GUESTS_ONLY.issuperset(vectors)}
    return {"TSS.RSP0", *(f"TSS.IST{ist}" for ist in usable)}


def _early_slots(path: EntryPath) -> set[int]:
    """The slots that the stub uses in front of its first switch; up to there it is taken to be in one piece."""
    first = min(switch.address for switch in path.cr3_switches if not switch.on_exit)
    return {access.offset for access in path.gs_accesses if path.entry <= access.address < first}


def _check_mapped(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
    path = facts.path_of(cpu)
    if cpu.user_pages is None:
        return
    pages = known(cpu.user_pages)
    for fact in (cpu.kernel_gs, cpu.spans, cpu.tss, cpu.idt):
        if isinstance(fact, Unavailable):
            yield NotChecked(fact.reason, cpu.index)
    for address, what in sorted(entry_addresses(cpu, path).items()):
        page = known(pages[address])
        if not page.mapped:
            yield Finding(
                f"{what} at {facts.name(address)} is not mapped in the user's page tables: {page.reason}",
                "mapped, supervisor, in both",
                "the user's page tables",
                address,
                cpu.index,
            )


ISOLATION_RULES = (
    Rule(
        "EXO007",
        Severity.ERROR,
        "What comes before the page-table switch is mapped for it",
        "The stub begins with the user's page tables, and so does every interrupt in user mode. What they need "
        "and do not find there is a page fault whose handler, stack and tables are missing, too: a triple fault.",
        "CVE-2017-5754 (why the kernel is not mapped there); Intel SDM Vol. 3A, Double Fault Exception",
        "Map the entry code, the per-CPU slots it uses up to the switch, GDT, IDT, TSS, the RSP0 and IST stacks "
        "into the user's page tables, as supervisor pages.",
        each_cpu(_check_mapped),
    ),
)
