"""What a rule of the doctor is, what it can say, and how a set of them is run.

A rule looks at `Facts` and yields a `Finding` for each thing that is wrong, and a `NotChecked` for each that it
could not look at. Silence means sound. Facts that are unavailable raise `UnavailableError` when a rule asks for
them, and the runner turns that into `NotChecked`: a rule cannot pass on something that nobody read.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from exogdb.abi.check.facts import CpuFacts, EntryFacts, Facts
from exogdb.errors import UnavailableError

__all__ = [
    "Finding",
    "NotChecked",
    "Outcome",
    "Report",
    "Result",
    "Rule",
    "Severity",
    "each_cpu",
    "each_entry",
    "run_rules",
]


class Severity(IntEnum):
    """How bad a finding is. ERROR: the kernel is broken or open to a user program. WARNING: a protection is off
    or a promise is kept only by luck. NOTE: worth knowing."""

    NOTE = 1
    WARNING = 2
    ERROR = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `address` is the instruction or the memory meant, `cpu` an index; None where
    there is no single one. `severity` overrides the rule's."""

    found: str
    expected: str
    where: str
    address: int | None = None
    cpu: int | None = None
    severity: Severity | None = None


@dataclass(frozen=True)
class NotChecked:
    """A rule, or one CPU's share of it, that could not be looked at."""

    reason: str
    cpu: int | None = None


Outcome: TypeAlias = Finding | NotChecked
Check: TypeAlias = Callable[[Facts], Iterable[Outcome]]


@dataclass(frozen=True)
class Rule:
    """One entry of the catalogue. `id` never changes and is never used again. `severity` is the usual one.

    `why` says what goes wrong in a kernel that breaks the rule, `source` where that can be read, `fix` what to
    do about it.
    """

    id: str
    severity: Severity
    title: str
    why: str
    source: str
    fix: str
    check: Check


@dataclass(frozen=True)
class Result:
    """What one rule said."""

    rule: Rule
    findings: tuple[Finding, ...]
    not_checked: tuple[NotChecked, ...]

    @property
    def status(self) -> str:
        """`found`, `not checked` (nothing found, but something could not be looked at) or `sound`."""
        if self.findings:
            return "found"
        return "not checked" if self.not_checked else "sound"

    def severity_of(self, finding: Finding) -> Severity:
        """How bad `finding` is: its own word, else the rule's."""
        return finding.severity if finding.severity is not None else self.rule.severity

    @property
    def worst(self) -> Severity | None:
        """The severity of the worst finding; None when nothing was found."""
        return max(map(self.severity_of, self.findings), default=None)


@dataclass(frozen=True)
class Report:
    """The results of every rule that was run, in the order of the catalogue."""

    results: tuple[Result, ...]

    def count(self, severity: Severity) -> int:
        """How many rules have a worst finding of exactly this severity."""
        return sum(result.worst == severity for result in self.results)

    @property
    def is_complete(self) -> bool:
        """Whether every rule could look at everything it asks for."""
        return not any(result.not_checked for result in self.results)

    @property
    def worst(self) -> Severity | None:
        """The severity of the worst finding; None when nothing was found."""
        return max((result.worst for result in self.results if result.worst is not None), default=None)


def run_rules(rules: Iterable[Rule], facts: Facts) -> Report:
    """Ask every rule. Pure: the facts were read before."""
    return Report(tuple(_run(rule, facts) for rule in rules))


def each_cpu(check: Callable[[CpuFacts, Facts], Iterable[Outcome]]) -> Check:
    """A check of the whole machine from a check of one CPU. Missing facts of one CPU do not hide another's."""

    def check_all(facts: Facts) -> Iterator[Outcome]:
        for cpu in facts.cpus:
            yield from _guard(check(cpu, facts), cpu.index)

    return check_all


def each_entry(check: Callable[[EntryFacts, Facts], Iterable[Outcome]]) -> Check:
    """A check of the whole machine from a check of one entry path; CPUs that share LSTAR share the path."""

    def check_all(facts: Facts) -> Iterator[Outcome]:
        if not facts.entries:
            yield NotChecked("no CPU's IA32_LSTAR could be read")
        for entry in facts.entries:
            yield from _guard(check(entry, facts), None)

    return check_all


def _guard(outcomes: Iterable[Outcome], cpu: int | None) -> Iterator[Outcome]:
    """What was found before a fact turned out to be missing is kept."""
    try:
        yield from outcomes
    except UnavailableError as error:
        yield NotChecked(error.reason, cpu)


def _run(rule: Rule, facts: Facts) -> Result:
    outcomes = list(_guard(rule.check(facts), None))
    return Result(
        rule,
        tuple(outcome for outcome in outcomes if isinstance(outcome, Finding)),
        tuple(outcome for outcome in outcomes if isinstance(outcome, NotChecked)),
    )
