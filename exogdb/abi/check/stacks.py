"""Rules about kernel stacks: the one that the entry stub loads, the TSS's RSP0 and IST, and who shares them."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from exogdb.abi.check.facts import LARGEST_STACK, CpuFacts, Facts, known
from exogdb.abi.check.rule import Finding, NotChecked, Outcome, Rule, Severity, each_cpu
from exogdb.reading import Reading, Unavailable
from exogdb.x86.paging import PageWalk

__all__ = ["ENCRYPTED_GUESTS_ONLY", "STACK_RULES", "describe_tops", "stack_addresses", "stack_tops", "used_ists"]

# rsp this far below a stack's top, or less, counts as being on that stack. Kernel stacks have 4 to 64 KiB.
USUAL_STACK = 0x10000
CR4_MCE = 1 << 6
NMI, MACHINE_CHECK = "NMI", "#MC"
# Raised only in a guest whose memory the processor encrypts (SEV-ES, SEV-SNP; AMD APM Vol. 2, Exceptions).
ENCRYPTED_GUESTS_ONLY = frozenset({"#HV", "#VC"})


@dataclass(frozen=True)
class _Top:
    """The top of one stack. `permanent`: it belongs to the CPU, not to the process that runs there now."""

    address: int
    what: str
    cpu: CpuFacts
    permanent: bool


def used_ists(cpu: CpuFacts) -> dict[int, list[str]]:
    """The IST numbers that present gates use, each with the vectors that use it."""
    used: dict[int, list[str]] = {}
    for gate in known(cpu.idt):
        if gate.present and gate.ist:
            used.setdefault(gate.ist, []).append(gate.name)
    return used


def _tops(cpu: CpuFacts) -> list[_Top]:
    """Every stack top of `cpu` that could be read and is not 0."""
    tops = []
    if isinstance(cpu.kernel_rsp, Reading):
        tops.append(_Top(cpu.kernel_rsp.value, "kernel rsp", cpu, permanent=False))
    if not isinstance(cpu.tss, Unavailable):
        tops.append(_Top(cpu.tss.rsp[0], "TSS.RSP0", cpu, permanent=False))
        if not isinstance(cpu.idt, Unavailable):
            ists = sorted(used_ists(cpu))
            tops += [_Top(cpu.tss.stack_for(ist), f"TSS.IST{ist}", cpu, permanent=True) for ist in ists]
    return [top for top in tops if top.address]


def describe_tops(cpu: CpuFacts) -> dict[int, str]:
    """What each stack top of `cpu` is: `kernel rsp`, `TSS.RSP0`, `TSS.IST1`; the last of them if it is several."""
    return {top.address: top.what for top in _tops(cpu)}


def stack_tops(cpu: CpuFacts) -> frozenset[int]:
    """Every stack top of `cpu` that is known and not 0."""
    return frozenset(describe_tops(cpu))


def stack_addresses(cpu: CpuFacts) -> frozenset[int]:
    """The addresses whose page walks the rules here ask for: the uppermost eight bytes of every stack."""
    return frozenset(top - 8 for top in stack_tops(cpu))


def _stack_problem(page: PageWalk) -> str:
    if not page.mapped:
        return f"not mapped just below it ({page.reason})"
    if page.user:
        return "its page is accessible to user programs"
    return "" if page.writable else "its page is read-only"


def _check_stack(cpu: CpuFacts, top: int, what: str, severity: Severity | None = None) -> Iterator[Outcome]:
    if top == 0 and cpu.cpl != 3:
        yield NotChecked(f"{what} is 0 and the CPU runs no user code", cpu.index)
        return
    problem = "0 while user code runs" if top == 0 else _stack_problem(cpu.page(top - 8))
    if problem:
        yield Finding(
            found=f"{what} = {top:#x}: {problem}",
            expected="the top of a mapped, writable supervisor stack",
            where=what,
            address=top or None,
            cpu=cpu.index,
            severity=severity,
        )


def _check_tss_stack(cpu: CpuFacts, top: int, what: str, severity: Severity | None = None) -> Iterator[Outcome]:
    """In long mode the CPU aligns rsp before it pushes a frame, so a crooked top harms only who counts from it."""
    yield from _check_stack(cpu, top, what, severity)
    if top % 16:
        yield Finding(
            found=f"{what} = {top:#x}: not a multiple of 16, so the CPU pushes {top % 16} bytes below it",
            expected="a multiple of 16, or a kernel that does not take the frame to end there",
            where=what,
            address=top,
            cpu=cpu.index,
            severity=Severity.NOTE,
        )


def _check_kernel_rsp(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    yield from _check_stack(cpu, known(cpu.kernel_rsp).value, "the rsp that the entry stub loads")


def _check_rsp0(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    yield from _check_tss_stack(cpu, known(cpu.tss).rsp[0], "TSS.RSP0")


def _check_ists(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    tss = known(cpu.tss)
    for ist, vectors in sorted(used_ists(cpu).items()):
        what = f"TSS.IST{ist} (for {_list(vectors)}"
        is_encrypted = ENCRYPTED_GUESTS_ONLY.issuperset(vectors)
        what += ", raised only in guests with encrypted memory" if is_encrypted else ""
        what += ")"
        severity = Severity.NOTE if is_encrypted else None
        if tss.stack_for(ist):
            yield from _check_tss_stack(cpu, tss.stack_for(ist), what, severity)
        else:
            yield Finding(f"{what} = 0", "a stack: gates use it", what, cpu=cpu.index, severity=severity)


def _unknown_stacks(cpu: CpuFacts) -> Iterator[NotChecked]:
    for fact in (cpu.kernel_rsp, cpu.tss, cpu.idt):
        if isinstance(fact, Unavailable):
            yield NotChecked(fact.reason, cpu.index)


def _check_not_shared(facts: Facts) -> Iterator[Outcome]:
    for cpu in facts.cpus:
        yield from _unknown_stacks(cpu)
    by_address: dict[int, list[_Top]] = defaultdict(list)
    for cpu in facts.cpus:
        for top in _tops(cpu):
            if top.what != "kernel rsp" or not _shares_gs_block(cpu, facts):
                by_address[top.address].append(top)
    for address, tops in sorted(by_address.items()):
        if len({top.cpu.index for top in tops}) > 1:
            yield _shared(address, tops)


def _shares_gs_block(cpu: CpuFacts, facts: Facts) -> bool:
    """CPUs that share a GS block share the slot in it: EXO045 reports that, once."""
    return any(other.kernel_gs == cpu.kernel_gs for other in facts.cpus if other.index < cpu.index)


def _shared(address: int, tops: list[_Top]) -> Finding:
    users = {top.cpu.index for top in tops if top.permanent or _is_on(top.cpu, address)}
    owners = ", ".join(f"CPU {top.cpu.index} {top.what}" for top in tops)
    stale = (
        "" if len(users) > 1 else "; not all of them run on it now, so one may be left from a process that moved"
    )
    return Finding(
        found=f"{address:#x} is the top of more than one CPU's stack: {owners}{stale}",
        expected="a stack of its own for each CPU",
        where="kernel stacks",
        address=address,
        severity=None if len(users) > 1 else Severity.NOTE,
    )


def _is_on(cpu: CpuFacts, top: int) -> bool:
    """The CPU runs on this stack, or will at the next SYSCALL or interrupt from user mode."""
    rsp, cs = cpu.registers.get("rsp"), cpu.registers.get("cs")
    if not isinstance(rsp, Reading) or not isinstance(cs, Reading):
        return False
    return cs.value & 3 == 3 or 0 <= top - rsp.value <= USUAL_STACK


def _check_shared_ist(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    """The CPU starts at the top of an IST stack each time, whatever is on it."""
    tss = known(cpu.tss)
    users: dict[int, list[str]] = defaultdict(list)
    for ist, vectors in used_ists(cpu).items():
        users[tss.stack_for(ist)] += vectors
    kernel = {top.address: top.what for top in _tops(cpu) if not top.permanent}
    for address, vectors in sorted(users.items()):
        if not address:
            continue  # EXO042 says so
        any_time = [name for name in _any_time(cpu) if name in vectors]
        others = [name for name in vectors if name not in any_time[:1]]
        if address in kernel:
            yield _overwriting(cpu, address, _list(vectors), f"has {kernel[address]} as its stack", Severity.ERROR)
        elif any_time and others:
            yield _overwriting(cpu, address, any_time[0], f"shares its stack with {_list(others)}", None)


def _any_time(cpu: CpuFacts) -> tuple[str, ...]:
    """What arrives whatever the CPU is doing, other handlers included. Without CR4.MCE there is no #MC."""
    return (NMI, MACHINE_CHECK) if cpu.register("cr4") & CR4_MCE else (NMI,)


def _list(vectors: list[str]) -> str:
    more = f" and {len(vectors) - 3} more" if len(vectors) > 3 else ""
    return ", ".join(vectors[:3]) + more


def _overwriting(cpu: CpuFacts, address: int, who: str, problem: str, severity: Severity | None) -> Finding:
    expected = "an IST stack that nothing else runs on"
    return Finding(f"{who} {problem}, {address:#x}", expected, "IDT and TSS", address, cpu.index, severity)


def _check_guard(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    yield from _unknown_stacks(cpu)
    for top, what in sorted(describe_tops(cpu).items()):
        depth = known(cpu.depths.get(top, Unavailable(f"the pages below {top:#x} were not looked at")))
        if depth is None:
            is_idle = what == "kernel rsp" and cpu.cpl != 3
            detail = "; no program runs here now, so it may be the idle loop's stack" if is_idle else ""
            yield Finding(
                f"{what} = {top:#x}: the {LARGEST_STACK >> 10} KiB below it can all be written{detail}",
                "a page below the stack that is not mapped, or read-only",
                what,
                top,
                cpu.index,
                Severity.NOTE if is_idle else None,
            )


STACK_RULES = (
    Rule(
        "EXO040",
        Severity.ERROR,
        "The entry stub loads a sound kernel stack",
        "The stub's first push goes there. If that faults, the page fault pushes there too, and the CPU ends "
        "in a double or triple fault; if user code can reach it, it can change the kernel's return addresses.",
        "Intel SDM Vol. 3A, Double Fault Exception; Vol. 2B, SYSCALL (rsp is not changed)",
        "Store the top of a mapped kernel stack in the per-CPU slot before the first return to user mode.",
        each_cpu(_check_kernel_rsp),
    ),
    Rule(
        "EXO041",
        Severity.ERROR,
        "TSS.RSP0 is a sound kernel stack",
        "The CPU pushes the frame of every interrupt and exception in user mode there, except those with an IST "
        "stack. It aligns rsp to 16 bytes first, as for every frame in long mode.",
        "Intel SDM Vol. 3A, Stack Switching in IA-32e Mode; 64-Bit Mode Stack Frame",
        "Set RSP0 in the TSS of this CPU whenever another process is chosen.",
        each_cpu(_check_rsp0),
    ),
    Rule(
        "EXO042",
        Severity.ERROR,
        "Every IST slot in use is a sound stack",
        "A gate with an IST index takes its stack from the TSS whatever is there: 0 or a stale address turns "
        "an NMI or a double fault into a triple fault.",
        "Intel SDM Vol. 3A, Interrupt Stack Table",
        "Fill the IST slots that the IDT uses in the TSS of every CPU, application processors included.",
        each_cpu(_check_ists),
    ),
    Rule(
        "EXO043",
        Severity.ERROR,
        "No two CPUs share a kernel stack",
        "Two CPUs in the kernel at the same time overwrite each other's frames and return addresses.",
        "Intel SDM Vol. 3A, Stack Switching in IA-32e Mode; Interrupt Stack Table",
        "Allocate the stacks of TSS and per-CPU block for each CPU separately.",
        _check_not_shared,
    ),
    Rule(
        "EXO046",
        Severity.WARNING,
        "What arrives at any time has a stack of its own",
        "For a gate with an IST index the CPU starts at the top of that stack, whatever is on it. An NMI or #MC "
        "that arrives in a handler on the same stack overwrites the frame that handler returns by; one on the "
        "kernel stack overwrites the system call in progress. An NMI holds back the next one only up to the next "
        "IRET, whoever executes it: a page fault or breakpoint inside the NMI handler ends that, and the next NMI "
        "starts over the frame of the first.",
        "Intel SDM Vol. 3A, Interrupt Stack Table; Handling Multiple NMIs; AMD APM Vol. 2, Interrupt-Stack Table",
        "Give NMI and #MC an IST slot each that no other gate uses, and stacks that are neither RSP0 nor a "
        "process's.",
        each_cpu(_check_shared_ist),
    ),
    Rule(
        "EXO047",
        Severity.WARNING,
        "Kernel stacks end at a guard page",
        "A stack that grows too far, by deep recursion or a large local array that a system call reaches, then "
        "overwrites what lies below it, unnoticed. With a hole there it is a page fault, and on #DF's IST stack a "
        "report.",
        "CVE-2016-1583 (a stack overflow that a system call reaches); Linux, "
        "Documentation/mm/vmalloced-kernel-stacks.rst",
        "Leave the page below each stack unmapped or read-only, and give #DF an IST stack.",
        each_cpu(_check_guard),
    ),
)
