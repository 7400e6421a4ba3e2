"""The rule that compares CPUs with each other: the MSRs of SYSCALL are per CPU, and each has to be set up."""

from collections import Counter
from collections.abc import Iterator

from exogdb.abi.check.facts import Facts
from exogdb.abi.check.rule import Finding, NotChecked, Outcome, Rule, Severity
from exogdb.reading import Reading, Unavailable

__all__ = ["CPU_RULES"]

# What has to be equal: the MSR, the bits of it that matter, and how bad a difference is.
COMPARED = (
    ("IA32_EFER", 1 << 0 | 1 << 8 | 1 << 10 | 1 << 11, Severity.ERROR),
    ("IA32_STAR", (1 << 64) - 1, Severity.ERROR),
    ("IA32_LSTAR", (1 << 64) - 1, Severity.ERROR),
    ("IA32_CSTAR", (1 << 64) - 1, Severity.WARNING),
    ("IA32_FMASK", 0xFFFFFFFF, Severity.ERROR),
)


def _check_same(facts: Facts) -> Iterator[Outcome]:
    for name, mask, severity in COMPARED:
        values: dict[int, int] = {}
        for cpu in facts.cpus:
            value = cpu.msrs.get(name, Unavailable("not read"))
            if isinstance(value, Reading):
                values[cpu.index] = value.value
            else:
                yield NotChecked(f"{name} is unavailable: {value.reason}", cpu.index)
        yield from _differences(facts, name, values, mask, severity)


def _differences(
    facts: Facts, name: str, values: dict[int, int], mask: int, severity: Severity
) -> Iterator[Finding]:
    """One finding for each CPU that differs from most of the others, or from the first if there is no majority."""
    counts = Counter(value & mask for value in values.values())
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    for index, value in sorted(values.items()):
        if value & mask != usual:
            other = next(cpu for cpu, candidate in sorted(values.items()) if candidate & mask == usual)
            yield Finding(
                f"{name} = {facts.name(value)}, on CPU {other} it is {facts.name(values[other])}",
                "the same value on every CPU",
                name,
                address=value if name in ("IA32_LSTAR", "IA32_CSTAR") else None,
                cpu=index,
                severity=severity,
            )


CPU_RULES = (
    Rule(
        "EXO050",
        Severity.ERROR,
        "The MSRs of SYSCALL are the same on every CPU",
        "A program may be moved to another CPU between any two instructions. A CPU with other values enters "
        "the kernel elsewhere, with other flags or selectors, or not at all.",
        "Intel SDM Vol. 3A, Fast System Calls in 64-Bit Mode (the MSRs are per logical processor)",
        "Run the same set-up function on every CPU. A kernel with an entry trampoline for each CPU may ignore "
        "this rule for LSTAR.",
        _check_same,
    ),
)
