"""What is particular about SYSRET: where it may return to, and with which operand."""

from collections.abc import Collection, Iterator, Mapping
from functools import reduce
from operator import or_

from exogdb.abi.check.facts import CpuFacts, EntryFacts, Facts, known
from exogdb.abi.check.rule import Finding, NotChecked, Outcome, Rule, Severity, each_entry
from exogdb.abi.check.stub import describe_exit, find_dispatcher, require_exits
from exogdb.abi.stub.entry_path import Comparison, EntryPath, Exit
from exogdb.abi.stub.graph import find_reachable
from exogdb.abi.stub.symbolic import Constant, Derived, Returned, Sum, Value, find_origin
from exogdb.errors import UnavailableError
from exogdb.reading import Unavailable
from exogdb.x86.word import MASK_64, to_signed

__all__ = ["SYSRET_RULES", "last_user_page", "may_use_sysret", "returns_to_32_bit"]

GENERAL_PROTECTION = 13
NEAR_THE_HOLE = 1 << 46  # a bound below this says nothing about being canonical
SHIFTS = frozenset({"shl", "sal", "shr", "sar"})
_KEPT_BITS = {f"{how}{bits}": (1 << bits) - 1 for how in ("low", "signed") for bits in (8, 16, 32)}


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
        if exit_.kind != "sysret" or _is_sysretl(path, exit_):
            continue
        choices = _find_choices(path, exit_)
        tests = [each for each in choices if _tests_return_address(each, exit_)]
        if not _is_reached(path, exit_, tests):
            continue
        undecided = [each for each in choices if _is_undecided(each, exit_)]
        if _is_reached(path, exit_, [*tests, *undecided]):
            yield _untested_return(entry, exit_, facts)
            continue
        yield NotChecked(
            f"what the branch at {facts.name(undecided[0].address)} tests is not told by the stub alone"
        )


def _find_choices(path: EntryPath, exit_: Exit) -> list[Comparison]:
    """The branches of which one side alone leads to `exit_`."""
    return [
        each
        for each in path.comparisons
        if each.on_exit is exit_.after_dispatch and _is_choice(each, exit_, _flow(path, exit_))
    ]


def _is_choice(branch: Comparison, exit_: Exit, flow: Mapping[int, list[int]]) -> bool:
    others = {address: following for address, following in flow.items() if address != branch.address}
    leads = [exit_.address in find_reachable([side], others) for side in flow.get(branch.address, ())]
    return any(leads) and not all(leads)


def _flow(path: EntryPath, exit_: Exit) -> Mapping[int, list[int]]:
    return path.flow_out if exit_.after_dispatch else path.flow_in


def _is_reached(path: EntryPath, exit_: Exit, without: Collection[Comparison]) -> bool:
    """Whether a way leads to `exit_` that passes none of these branches."""
    start = find_dispatcher(path).return_address if exit_.after_dispatch else path.entry
    passed = {each.address for each in without}
    flow = {address: following for address, following in _flow(path, exit_).items() if address not in passed}
    return exit_.address in find_reachable([start], flow)


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


def _is_undecided(branch: Comparison, exit_: Exit) -> bool:
    """It depends on what was not followed, or on the dispatcher: that may have looked at the return address.

    A dispatcher that gives the call's result has said nothing else by it.
    """
    if branch.compared is None:
        return True
    told = [origin for each in branch.compared if isinstance(origin := find_origin(each), Returned)]
    is_result = exit_.registers["rax"].kind == "result"
    return any(each.register != "rax" or not is_result for each in told)


def _tests_return_address(branch: Comparison, exit_: Exit) -> bool:
    """Whether the branch depends on the upper bits of the value that rcx has at the exit."""
    returned, compared = exit_.registers["rcx"].value, branch.compared
    return compared is not None and (
        _tests_upper_bits(returned, *compared) or _tests_upper_bits(returned, *compared[::-1])
    )


def _tests_upper_bits(returned: str, side: Value, other: Value) -> bool:
    """A shift or mask of the address, or the address itself against a bound near the canonical hole."""
    if str(side) == returned:
        return isinstance(other, Constant) and other.value >= NEAR_THE_HOLE
    return find_influence(side, returned) != 0


def find_influence(value: Value, address: str) -> int:
    """The bits of `value` that come from the upper bits of what is written `address`, as a mask.

    >>> from exogdb.abi.stub.symbolic import UserValue
    >>> shifted = Derived("shr", (UserValue("rip"), Constant(47)))
    >>> low = Derived("and", (UserValue("rip"), Constant(7)))
    >>> [f"{find_influence(each, 'user rip'):#x}" for each in (shifted, low)]
    ['0x1ffff', '0x0']
    """
    if str(value) == address:
        return MASK_64 & -NEAR_THE_HOLE << 1
    match value:
        case Sum(base, _):
            return find_influence(base, address)
        case Derived(operation, (one, Constant(number))):
            return _change_influence(operation, find_influence(one, address), number)
        case Derived(operation, operands):
            influence = [find_influence(each, address) for each in operands]
            kept = _KEPT_BITS.get(operation, MASK_64)
            return MASK_64 if operation in SHIFTS and any(influence) else reduce(or_, influence) & kept
    return 0


def _change_influence(operation: str, influence: int, number: int) -> int:
    match operation:
        case "shr" | "sar":
            return (to_signed(influence) if operation == "sar" else influence) >> (number & 63) & MASK_64
        case "shl" | "sal":
            return influence << (number & 63) & MASK_64
        case "and":
            return influence & number
        case "or":
            return influence & ~number
    return influence


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
