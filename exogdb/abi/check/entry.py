"""Rules about the address in IA32_LSTAR: where the next SYSCALL goes.

Each rule leaves to the one before it what that one reports: an address that is not canonical is not also
reported as not mapped.
"""

from collections.abc import Iterator

from exogdb.abi.check.facts import CpuFacts, Facts, known
from exogdb.abi.check.rule import Finding, Outcome, Rule, Severity, each_cpu
from exogdb.errors import UnavailableError
from exogdb.x86.address import is_canonical
from exogdb.x86.paging import PageWalk

__all__ = ["ENTRY_RULES"]

EXECUTABLE = "an address in an executable section of the kernel"


def _finding(cpu: CpuFacts, facts: Facts, problem: str, expected: str) -> Finding:
    lstar = cpu.msr("IA32_LSTAR")
    found = f"IA32_LSTAR = {facts.name(lstar)}: {problem}"
    return Finding(found, expected, "IA32_LSTAR", address=lstar, cpu=cpu.index)


def _check_canonical(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
    bits = cpu.address_bits
    if not is_canonical(cpu.msr("IA32_LSTAR"), bits):
        problem = f"not canonical with {bits}-bit linear addresses"
        yield _finding(cpu, facts, problem, f"bits 63 to {bits - 1} all equal")


def _canonical_lstar(cpu: CpuFacts) -> int:
    lstar = cpu.msr("IA32_LSTAR")
    if not is_canonical(lstar, cpu.address_bits):
        raise UnavailableError("IA32_LSTAR is not canonical (EXO002)")
    return lstar


def _check_mapped(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
    page = cpu.page(_canonical_lstar(cpu))
    if not page.mapped:
        yield _finding(cpu, facts, f"not mapped: {page.reason}", "a mapped, executable page")
    elif page.nx:
        yield _finding(cpu, facts, "its page is marked no-execute", "a mapped, executable page")


def _mapped_page(cpu: CpuFacts) -> PageWalk:
    page = cpu.page(_canonical_lstar(cpu))
    if not page.mapped:
        raise UnavailableError("IA32_LSTAR is not mapped (EXO003)")
    return page


def _check_supervisor(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
    if _mapped_page(cpu).user:
        yield _finding(cpu, facts, "its page is accessible to user programs", "a supervisor page (U/S = 0)")


def _check_text(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
    if _mapped_page(cpu).user:
        raise UnavailableError("IA32_LSTAR points at a user page (EXO004)")
    lstar = cpu.msr("IA32_LSTAR")
    if lstar == 0:
        yield _finding(cpu, facts, "its value after reset", EXECUTABLE)
        return
    section = next((section for section in known(facts.sections) if lstar in section), None)
    if section is None:
        finding = _finding(cpu, facts, "in no section of the kernel's symbol file", EXECUTABLE)
        yield Finding(finding.found, EXECUTABLE, finding.where, lstar, cpu.index, Severity.WARNING)
    elif not section.executable:
        yield _finding(cpu, facts, f"in {section.name}, which is not executable", EXECUTABLE)


ENTRY_RULES = (
    Rule(
        "EXO002",
        Severity.ERROR,
        "LSTAR is canonical",
        "SYSCALL does not look at LSTAR before it jumps there: the fetch raises #GP, at CPL 0 on the user's "
        "stack. WRMSR refuses such a value on hardware, but not on every emulator; and a CPU that has 57-bit "
        "addresses accepts all that are canonical with those, also while CR4.LA57 is clear.",
        "Intel SDM Vol. 2D, WRMSR; Vol. 3A, Fast System Calls in 64-Bit Mode; Vol. 1, Canonical Addressing",
        "Write the full 64-bit address of the entry stub, sign-extended from bit 47 (56 with CR4.LA57).",
        each_cpu(_check_canonical),
    ),
    Rule(
        "EXO003",
        Severity.ERROR,
        "LSTAR is mapped and executable",
        "SYSCALL does not fault by itself: the fetch of the first kernel instruction does, at CPL 0 and on "
        "the user's stack, which usually ends in a triple fault.",
        "Intel SDM Vol. 2B, SYSCALL; Vol. 3A, Access Rights",
        "Map the entry stub executable in every address space that user programs run in.",
        each_cpu(_check_mapped),
    ),
    Rule(
        "EXO004",
        Severity.ERROR,
        "LSTAR lies in a supervisor page",
        "Code in a user page runs at CPL 0 at every SYSCALL. With SMEP the fetch faults; without it, whoever "
        "can write that page owns the kernel.",
        "Intel SDM Vol. 3A, Access Rights (SMEP)",
        "Map the entry stub with U/S = 0 at some level of the page tables.",
        each_cpu(_check_supervisor),
    ),
    Rule(
        "EXO005",
        Severity.ERROR,
        "LSTAR lies in the kernel's text",
        "An entry point outside the kernel's own code is a stale pointer, a wrong relocation, or a hook that "
        "something else put there.",
        "MITRE ATT&CK T1014 (rootkits that hook system calls); Intel SDM Vol. 2B, SYSCALL",
        "Compare with the symbol of the entry stub; load the symbol file of the kernel that runs, or of its "
        "module.",
        each_cpu(_check_text),
    ),
)
