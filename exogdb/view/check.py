"""What the doctor found, for people and for scripts."""

import textwrap
from collections.abc import Collection, Iterable
from typing import Any

from exogdb.abi.check.rule import Finding, NotChecked, Report, Result, Rule, Severity
from exogdb.view.style import Style
from exogdb.view.value import hex64

__all__ = [
    "render_catalogue",
    "render_report",
    "render_rules",
    "report_to_json",
    "rules_to_json",
    "summarize",
]

_ROLES = {Severity.ERROR: "bad", Severity.WARNING: "warning", Severity.NOTE: "faint"}
_LABEL_WIDTH = 10
_NARROWEST = 40


def summarize(report: Report) -> str:
    """The counts in one line.

    >>> summarize(Report(()))
    '0 errors, 0 warnings, 0 notes; 0 rules: 0 sound, 0 not checked'
    """
    counts = ", ".join(
        _count(report.count(severity), str(severity)) for severity in sorted(Severity, reverse=True)
    )
    statuses = [result.status for result in report.results]
    rules = _count(len(statuses), "rule")
    return f"{counts}; {rules}: {statuses.count('sound')} sound, {statuses.count('not checked')} not checked"


def render_report(report: Report, style: Style, *, sources: Collection[str] = (), show_sound: bool = False) -> str:
    """Findings, worst first, each with what to do about it; then what was not checked; then the counts.

    `sources` are where the MSRs came from: if the guest had to execute RDMSR, the text says so.
    """
    found = [(result.worst, result) for result in report.results if result.worst is not None]
    found.sort(key=lambda pair: pair[0], reverse=True)
    blocks = [_render_result(result, worst, style) for worst, result in found]
    unchecked = [result for result in report.results if result.not_checked]
    if unchecked:
        blocks.append("\n".join([style.paint("heading", "not checked"), *_for_each_unchecked(unchecked, style)]))
    if show_sound:
        sound = [
            f"  {result.rule.id}  {result.rule.title}" for result in report.results if result.status == "sound"
        ]
        blocks.append("\n".join([style.paint("heading", "sound"), *sound]))
    if "rdmsr" in sources:
        blocks.append("MSRs were read by RDMSR executed in the guest, which was restored: QMP would not touch it.")
    return "\n\n".join([*blocks, summarize(report)])


def _render_result(result: Result, worst: Severity, style: Style) -> str:
    lines = [
        f"{style.paint(_ROLES[worst], str(worst))} {style.paint('name', result.rule.id)}  {result.rule.title}"
    ]
    for finding, cpus in _merge(result.findings):
        severity = result.severity_of(finding)
        mark = f"{severity}: " if severity != worst else ""
        lines += _labelled("found", f"{mark}{finding.found}{_on(cpus)}", style)
        lines += _labelled("expected", finding.expected, style)
    lines += _labelled("why", result.rule.why, style)
    lines += _labelled("fix", result.rule.fix, style)
    lines += _labelled("see", result.rule.source, style)
    return "\n".join(lines)


def _for_each_unchecked(results: Iterable[Result], style: Style) -> Iterable[str]:
    for result in results:
        for reason, cpus in _merge_reasons(result.not_checked):
            yield from _labelled(result.rule.id, f"{result.rule.title}: {reason}{_on(cpus)}", style)


def _labelled(label: str, text: str, style: Style) -> list[str]:
    indent = " " * (_LABEL_WIDTH + 2)
    width = max(style.width, _NARROWEST) - len(indent) if style.width else len(text) + 1
    lines = textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)
    first = f"  {style.paint('faint', label.ljust(_LABEL_WIDTH))}"
    return [f"{first}{lines[0]}", *(f"{indent}{line}" for line in lines[1:])]


def _merge(findings: Iterable[Finding]) -> list[tuple[Finding, list[int]]]:
    """Findings that differ in nothing but the CPU become one with several CPUs."""
    merged: dict[tuple[str, str, str], tuple[Finding, list[int]]] = {}
    for finding in findings:
        _, cpus = merged.setdefault((finding.found, finding.expected, finding.where), (finding, []))
        cpus += [] if finding.cpu is None else [finding.cpu]
    return list(merged.values())


def _merge_reasons(reasons: Iterable[NotChecked]) -> list[tuple[str, list[int]]]:
    merged: dict[str, list[int]] = {}
    for each in reasons:
        merged.setdefault(each.reason, []).extend([] if each.cpu is None else [each.cpu])
    return list(merged.items())


def _on(cpus: list[int]) -> str:
    if not cpus:
        return ""
    return f" [CPU {cpus[0]}]" if len(cpus) == 1 else f" [CPUs {', '.join(map(str, cpus))}]"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def render_rules(rules: Iterable[Rule], style: Style) -> str:
    """The catalogue, one line for each rule."""
    return "\n".join(f"{style.paint('name', rule.id)}  {_severity(rule, style)}{rule.title}" for rule in rules)


def _severity(rule: Rule, style: Style) -> str:
    return style.paint(_ROLES[rule.severity], str(rule.severity).ljust(9))


def report_to_json(report: Report, sources: Collection[str] = ()) -> dict[str, Any]:
    """`{"errors": n, "warnings": n, "notes": n, "not_checked": n, "msr_sources": [...], "rules": [...]}`.

    Every rule that was asked is in `rules`.
    """
    return {
        "errors": report.count(Severity.ERROR),
        "warnings": report.count(Severity.WARNING),
        "notes": report.count(Severity.NOTE),
        "not_checked": sum(result.status == "not checked" for result in report.results),
        "msr_sources": sorted(sources),
        "rules": [_result_to_json(result) for result in report.results],
    }


def rules_to_json(rules: Iterable[Rule]) -> dict[str, Any]:
    """`{"rules": [{"id": ..., "severity": ..., "title": ..., "why": ..., "source": ..., "fix": ...}]}`."""
    return {"rules": [_rule_to_json(rule) for rule in rules]}


def _rule_to_json(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "severity": str(rule.severity),
        "title": rule.title,
        "why": rule.why,
        "source": rule.source,
        "fix": rule.fix,
    }


def _result_to_json(result: Result) -> dict[str, Any]:
    return {
        **_rule_to_json(result.rule),
        "status": result.status,
        "findings": [_finding_to_json(result, finding) for finding in result.findings],
        "not_checked": [{"reason": each.reason, "cpu": each.cpu} for each in result.not_checked],
    }


def _finding_to_json(result: Result, finding: Finding) -> dict[str, Any]:
    return {
        "severity": str(result.severity_of(finding)),
        "found": finding.found,
        "expected": finding.expected,
        "where": finding.where,
        "address": None if finding.address is None else hex64(finding.address),
        "cpu": finding.cpu,
    }


def render_catalogue(rules: Iterable[Rule]) -> str:
    """`docs/checks.md`: the whole catalogue in Markdown, without its introduction."""
    return "\n".join(
        f"## {rule.id}: {rule.title}\n\n"
        f"Usually a{'n' if rule.severity is Severity.ERROR else ''} **{rule.severity}**.\n\n"
        f"{rule.why}\n\n"
        f"- Fix: {rule.fix}\n"
        f"- Source: {rule.source}\n"
        for rule in rules
    )
