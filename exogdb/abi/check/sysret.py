"""What is particular about SYSRET: where it may return to, and with which operand."""

from collections.abc import Iterator

from exogdb.abi.check.facts import CpuFacts, EntryFacts, Facts, known
from exogdb.abi.check.rule import Finding, NotChecked, Outcome, Rule, Severity, each_entry
from exogdb.abi.check.stub import describe_exit, require_exits
from exogdb.abi.stub.entry_path import Comparison, EntryPath, Exit
from exogdb.abi.stub.symbolic import Constant, Derived, Returned, Value, find_origin
from exogdb.errors import UnavailableError
from exogdb.reading import Unavailable

__all__ = ["SYSRET_RULES", "last_user_page", "may_use_sysret", "returns_to_32_bit"]

GENERAL_PROTECTION = 13
NEAR_THE_HOLE = 1 << 46  # a bound below this says nothing about being canonical


def may_use_sysret(path: EntryPath) -> bool:
    """Whether the stub has a SYSRET, or ways out that could not be followed."""
    return not path.exits or bool(path.doubts) or any(exit_.kind == "sysret" for exit_ in path.exits)


def returns_to_32_bit(path: EntryPath) -> bool:
    """Whether the stub has a SYSRET with a 32-bit operand, which enters compatibility mode."""
    return any(_is_sysretl(path, exit_) for exit_ in path.exits)


def _is_sysretl(path: EntryPath, exit_: Exit) -> bool:
    """SYSRET without REX.W: it goes to ecx, so always to a canonical address."""
    return exit_.address in path.states and path.states[exit_.address].text == "sysret"


def _check_canonical_return(entry: EntryFacts, facts: Facts) -> Iterator[Outcome]:
    path = known(entry.path)
    for exit_ in require_exits(path):
        if exit_.kind != "sysret" or _is_sysretl(path, exit_) or not exit_.after_dispatch:
            continue
        if _tests_return_address(path, exit_):
            continue
        undecided = next((each for each in path.comparisons if each.on_exit and _is_undecided(each)), None)
        if undecided is not None:
            yield NotChecked(
                f"what the branch at {facts.name(undecided.address)} tests is not told by the stub alone"
            )
            continue
        yield _untested_return(entry, exit_, facts)


def _untested_return(entry: EntryFacts, exit_: Exit, facts: Facts) -> Finding:
    """Worse where a program is one SYSCALL away from it, better where #GP does not use the user's stack."""
    severity, detail = Severity.WARNING, ""
    if all(_has_ist(cpu, GENERAL_PROTECTION) for cpu in facts.cpus if cpu.index in entry.cpus):
        severity = Severity.NOTE
        detail = "; #GP has an IST stack, and its handler must expect it at CPL 0 with the user's rsp and GS base"
    mapped = next((cpu for cpu in facts.cpus if _last_page_is_code(cpu)), None)
    if mapped is not None:
        severity = Severity(severity + 1)
        detail += f"; CPU {mapped.index} has user code mapped in the last page below the hole"
    return Finding(
        f"nothing on the way to {describe_exit(facts, exit_)} tests rcx{detail}",
        "a test that rcx is a canonical user address, and IRETQ or a signal otherwise",
        "entry stub",
        exit_.address,
        severity=severity,
    )


def _has_ist(cpu: CpuFacts, vector: int) -> bool:
    return not isinstance(cpu.idt, Unavailable) and len(cpu.idt) > vector and cpu.idt[vector].ist != 0


def _is_undecided(branch: Comparison) -> bool:
    """It depends on what was not followed, or on the dispatcher: that may have looked at the return address."""
    return branch.compared is None or any(isinstance(find_origin(each), Returned) for each in branch.compared)


def _tests_return_address(path: EntryPath, exit_: Exit) -> bool:
    """Whether a branch on the way out depends on the upper bits of the value that rcx has at the exit."""
    returned = exit_.registers["rcx"].value
    pairs = (each.compared for each in path.comparisons if each.on_exit and each.compared is not None)
    return any(_tests_upper_bits(returned, *pair) or _tests_upper_bits(returned, *pair[::-1]) for pair in pairs)


def _tests_upper_bits(returned: str, side: Value, other: Value) -> bool:
    """A shift or mask of the address, or the address itself against a bound near the canonical hole."""
    if str(side) == returned:
        return isinstance(other, Constant) and other.value >= NEAR_THE_HOLE
    return isinstance(side, Derived) and returned in str(side)


def last_user_page(address_bits: int) -> int:
    """The last page whose addresses are canonical and in the lower half.

    A SYSCALL in its last two bytes returns to the first non-canonical address.

    >>> hex(last_user_page(48))
    '0x7ffffffff000'
    """
    return (1 << address_bits - 1) - 0x1000


def _last_page_is_code(cpu: CpuFacts) -> bool:
    try:
        page = cpu.page(last_user_page(cpu.address_bits))
    except UnavailableError:
        return False
    return page.mapped and page.user and not page.nx


SYSRET_RULES = (
    Rule(
        "EXO034",
        Severity.WARNING,
        "SYSRET does not return to a non-canonical address",
        "On Intel, SYSRET with a non-canonical rcx raises #GP at CPL 0, when rsp and GS base are the user's "
        "already: without an IST stack the fault's frame is written where the program wants it. AMD's returns "
        "first, and the program gets the #GP. A SYSCALL in the last two bytes of the lower half gets there, or a "
        "frame that ptrace or a signal handler changed. IRETQ faults in the kernel on either, but still with the "
        "kernel's rsp.",
        "CVE-2012-0217, CVE-2006-0744, CVE-2014-4699; Intel SDM Vol. 2B, SYSRET",
        "Test rcx and return by IRETQ if it is not canonical; never map the last page of the lower half; give #GP "
        "an IST stack.",
        each_entry(_check_canonical_return),
    ),
)
