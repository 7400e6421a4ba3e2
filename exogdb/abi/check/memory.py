"""Rules about the kernel's own pages: the per-CPU blocks behind GS, and what protects text and data."""

from collections.abc import Callable, Iterator
from itertools import combinations

from exogdb.abi.check.facts import PAGE, CpuFacts, Facts, known
from exogdb.abi.check.rule import Finding, NotChecked, Outcome, Rule, Severity, each_cpu
from exogdb.abi.section import Section
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.abi.stub.symbolic import Gs
from exogdb.errors import UnavailableError
from exogdb.reading import Reading, Unavailable
from exogdb.x86.address import is_canonical
from exogdb.x86.paging import CR4_SMEP, PageWalk

__all__ = ["MEMORY_RULES", "gs_slots", "section_pages"]

CR0_WP = 1 << 16
CR4_UMIP, CR4_SMAP = 1 << 11, 1 << 21
EFER_NXE = 1 << 11


def section_pages(section: Section) -> range:
    """The address of every 4 KiB page that `section` lies in."""
    return range(section.start & -PAGE, section.end, PAGE)


def gs_slots(cpu: CpuFacts, path: EntryPath | Unavailable) -> frozenset[int]:
    """The addresses of the per-CPU slots that the stub uses on this CPU; the block's start if it is not known."""
    if isinstance(cpu.kernel_gs, Unavailable):
        return frozenset()
    base = cpu.kernel_gs.value
    accesses = () if isinstance(path, Unavailable) else path.gs_accesses
    offsets = {access.offset for access in accesses if access.active is Gs.KERNEL} or {0}
    return frozenset((base + offset) % (1 << 64) for offset in offsets)


def _check_gs_block(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
    base = known(cpu.kernel_gs).value
    path = next((entry.path for entry in facts.entries if cpu.index in entry.cpus), Unavailable("no entry stub"))
    for slot in sorted(gs_slots(cpu, path)):
        problem = _slot_problem(cpu, slot)
        if problem:
            what = f", and gs:[{slot - base:#x}] at {slot:#x}" if slot != base else ""
            found = f"the kernel's GS base = {base:#x}{what} {problem}"
            yield Finding(found, "a mapped, writable supervisor page", "the kernel's GS base", slot, cpu.index)
            return
    if isinstance(path, Unavailable):
        yield NotChecked(f"which slots the stub uses is not known: {path.reason}", cpu.index)


def _slot_problem(cpu: CpuFacts, address: int) -> str:
    if not is_canonical(address, cpu.address_bits):
        return "is not canonical"
    page = cpu.page(address)
    if not page.mapped:
        return f"is not mapped ({page.reason})"
    if page.user:
        return "is accessible to user programs"
    return "" if page.writable else "is read-only"


def _check_gs_distinct(facts: Facts) -> Iterator[Outcome]:
    bases = {}
    for cpu in facts.cpus:
        if isinstance(cpu.kernel_gs, Reading):
            bases[cpu.index] = cpu.kernel_gs.value
        else:
            yield NotChecked(f"the kernel's GS base is unavailable: {cpu.kernel_gs.reason}", cpu.index)
    for first, second in combinations(sorted(bases), 2):
        if bases[first] == bases[second]:
            yield Finding(
                f"CPU {first} and CPU {second} have the same GS block at {bases[first]:#x}",
                "a per-CPU block for each CPU",
                "the kernel's GS base",
                address=bases[first],
                cpu=second,
            )


def _check_feature(bit: int, feature: str) -> Callable[[CpuFacts, Facts], Iterator[Outcome]]:
    name = feature.upper()

    def check(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
        cr4 = cpu.register("cr4")
        if cr4 & bit:
            return
        offered = facts.model.features.get(feature, Unavailable("not asked"))
        if isinstance(offered, Unavailable):
            detail = "; whether this CPU has it is unknown"
        else:
            detail = ", and this CPU has it" if offered else "; this CPU does not have it (QEMU: `-cpu max` does)"
        yield Finding(
            f"CR4 = {cr4:#x}, {name} = 0{detail}",
            f"{name} (bit {bit.bit_length() - 1}) = 1",
            "CR4",
            cpu=cpu.index,
            severity=Severity.NOTE if offered is False else None,
        )

    return check


def _check_nxe(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    efer = cpu.msr("IA32_EFER")
    if not efer & EFER_NXE:
        yield Finding(f"IA32_EFER = {efer:#x}, NXE = 0", "NXE (bit 11) = 1", "IA32_EFER", cpu=cpu.index)


def _check_write_protect(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    cr0 = cpu.register("cr0")
    if not cr0 & CR0_WP:
        yield Finding(f"CR0 = {cr0:#x}, WP = 0", "WP (bit 16) = 1", "CR0", cpu=cpu.index)


def _count_pages(facts: Facts, section: Section, is_bad: Callable[[PageWalk], bool]) -> tuple[int, int | None]:
    """How many mapped pages of `section` are bad, and the first of them."""
    count, first = 0, None
    for address in section_pages(section):
        page = known(
            facts.image_pages.get(address, Unavailable(f"the page tables were not walked for {address:#x}"))
        )
        if page.mapped and is_bad(page):
            count += 1
            first = address if first is None else first
    return count, first


def _page_finding(
    facts: Facts, section: Section, is_bad: Callable[[PageWalk], bool], problem: str, severity: Severity
) -> Iterator[Finding]:
    count, first = _count_pages(facts, section, is_bad)
    if count:
        pages = "1 page is" if count == 1 else f"{count} pages are"
        found = f"{section.name}: {pages} {problem}, the first at {first:#x}"
        expected = "read-only, supervisor" if section.executable else "no-execute, supervisor"
        yield Finding(found, expected, section.name, first, severity=severity)


def _is_writable_code(page: PageWalk) -> bool:
    return page.writable and not page.nx


def _check_text(facts: Facts) -> Iterator[Outcome]:
    text = [section for section in known(facts.sections) if section.executable]
    if not text:
        raise UnavailableError("the kernel's symbol file has no executable section")
    for section in text:
        # What was freed after booting is data now, and cannot be executed: code of initialisation, say.
        yield from _page_finding(facts, section, _is_writable_code, "writable", Severity.WARNING)
        yield from _page_finding(
            facts, section, lambda page: page.user, "accessible to user programs", Severity.ERROR
        )


def _check_data(facts: Facts) -> Iterator[Outcome]:
    for section in known(facts.sections):
        if section.executable or section.end <= section.start:
            continue
        yield from _page_finding(facts, section, lambda page: not page.nx, "executable", Severity.WARNING)
        yield from _page_finding(
            facts, section, lambda page: page.user, "accessible to user programs", Severity.ERROR
        )


MEMORY_RULES = (
    Rule(
        "EXO044",
        Severity.ERROR,
        "The kernel's GS block is the kernel's",
        "The entry stub takes the kernel stack from this block. If it is not mapped every system call faults "
        "on the user's stack; if user code can write it, it chooses the kernel's stack.",
        "Intel SDM Vol. 2B, SWAPGS",
        "Point IA32_KERNEL_GS_BASE (or IA32_GS_BASE while in the kernel) at a supervisor page on every CPU.",
        each_cpu(_check_gs_block),
    ),
    Rule(
        "EXO045",
        Severity.ERROR,
        "Every CPU has its own GS block",
        "Two CPUs with one block load the same kernel stack and overwrite each other's saved user rsp.",
        "Intel SDM Vol. 2B, SWAPGS",
        "Give each application processor the address of its own block before it enables interrupts.",
        _check_gs_distinct,
    ),
    Rule(
        "EXO060",
        Severity.WARNING,
        "SMEP is on",
        "Without SMEP a kernel pointer that a program controls can be made to execute the program's own code "
        "at CPL 0.",
        "Intel SDM Vol. 3A, Access Rights (CR4.SMEP)",
        "Set CR4 bit 20 on every CPU where CPUID.(EAX=7,ECX=0):EBX[7] is set.",
        each_cpu(_check_feature(CR4_SMEP, "smep")),
    ),
    Rule(
        "EXO061",
        Severity.WARNING,
        "SMAP is on",
        "Without SMAP the kernel reads and writes user memory wherever a bad pointer leads it, unnoticed.",
        "Intel SDM Vol. 3A, Access Rights (CR4.SMAP)",
        "Set CR4 bit 21 where CPUID.(EAX=7,ECX=0):EBX[20] is set, and wrap wanted accesses in STAC and CLAC.",
        each_cpu(_check_feature(CR4_SMAP, "smap")),
    ),
    Rule(
        "EXO062",
        Severity.WARNING,
        "No-execute is on",
        "With EFER.NXE = 0 every readable page can be executed: stacks, heap and user data.",
        "Intel SDM Vol. 3A, Access Rights (IA32_EFER.NXE)",
        "Set bit 11 of IA32_EFER on every CPU where CPUID.80000001H:EDX[20] is set.",
        each_cpu(_check_nxe),
    ),
    Rule(
        "EXO063",
        Severity.WARNING,
        "The kernel respects read-only pages",
        "With CR0.WP = 0 code at CPL 0 writes to read-only pages: the kernel's text, and pages that user "
        "processes share copy-on-write.",
        "Intel SDM Vol. 3A, Access Rights (CR0.WP)",
        "Set CR0 bit 16 on every CPU.",
        each_cpu(_check_write_protect),
    ),
    Rule(
        "EXO064",
        Severity.WARNING,
        "Kernel text is read-only and the kernel's",
        "A kernel write through a bad pointer can change code in a writable text page; a text page that user "
        "programs can reach shows them the kernel's code, or lets them change it. Writable pages of an executable "
        "section that cannot be executed are no text any more: what a kernel freed after booting.",
        "Intel SDM Vol. 3A, Access Rights",
        "Map executable sections with R/W = 0 and U/S = 0; write them through another mapping if need be.",
        _check_text,
    ),
    Rule(
        "EXO065",
        Severity.WARNING,
        "Kernel data is not executable",
        "Bytes that a program sends into the kernel's data can be executed as code at CPL 0.",
        "Intel SDM Vol. 3A, Access Rights (bit 63, XD)",
        "Set bit 63 in the page-table entries of all sections that hold no code, and EFER.NXE.",
        _check_data,
    ),
    Rule(
        "EXO066",
        Severity.WARNING,
        "UMIP is on",
        "Without UMIP a program reads the addresses of GDT and IDT with SGDT and SIDT: address randomisation of "
        "the kernel hides nothing from it.",
        "Intel SDM Vol. 3A, Control Registers (CR4.UMIP)",
        "Set CR4 bit 11 on every CPU where CPUID.(EAX=7,ECX=0):ECX[2] is set.",
        each_cpu(_check_feature(CR4_UMIP, "umip")),
    ),
)
