"""What the doctor found, for people and for scripts."""

import textwrap
from collections.abc import Collection, Iterable
from dataclasses import replace
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
    rules = _count(len(report.results), "rule")
    sound = sum(result.status == "sound" for result in report.results)
    return f"{counts}; {rules}: {sound} sound, {_count_unchecked(report)} not checked"


def _count_unchecked(report: Report) -> int:
    """How many rules could not look at everything that they ask for, whatever they found in the rest."""
    return sum(bool(result.not_checked) for result in report.results)


def render_report(
    report: Report,
    style: Style,
    *,
    sources: Collection[str] = (),
    left_out: Collection[int] = (),
    show_sound: bool = False,
) -> str:
    """Findings, worst first, each with what to do about it; then what was not checked; then the counts.

    `sources` are where the MSRs came from: if the guest had to execute RDMSR, the text says so. `left_out` are the
    CPUs that were not looked at.
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
    if left_out:
        are = "is" if len(left_out) == 1 else "are"
        blocks.append(f"{_name_cpus(sorted(left_out))} {are} not in long mode, and left out.")
    if "rdmsr" in sources:
        blocks.append("MSRs were read by RDMSR executed in the guest, which was restored: QMP would not touch it.")
    return "\n\n".join([*blocks, summarize(report)])


def _render_result(result: Result, worst: Severity, style: Style) -> str:
    heading = f"{style.paint(_ROLES[worst], str(worst))} {style.paint('name', result.rule.id)}"
    lines = _wrap(f"not kept: {result.rule.title}", f"{heading}  ", len(f"{worst} {result.rule.id}  "), style)
    for finding, cpus in _merge(result.findings):
        severity = result.severity_of(finding)
        mark = f"{severity}: " if severity != worst else ""
        lines += _labelled("found", f"{mark}{finding.found}", style)
        lines += _labelled("expected", finding.expected, style)
        lines += _labelled("where", _where(finding, cpus), style)
    lines += _labelled("why", result.rule.why, style)
    lines += _labelled("fix", result.rule.fix, style)
    lines += _labelled("see", result.rule.source, style)
    return "\n".join(lines)


def _for_each_unchecked(results: Iterable[Result], style: Style) -> Iterable[str]:
    for result in results:
        for reason, cpus in _merge_reasons(result.not_checked):
            on = f" [{_name_cpus(cpus)}]" if cpus else ""
            yield from _labelled(result.rule.id, f"{result.rule.title}: {reason}{on}", style)


def _where(finding: Finding, cpus: list[int]) -> str:
    """The place, its address if the finding's own words do not have it, and the CPUs."""
    address = "" if finding.address is None else f"{finding.address:#x}"
    parts = [finding.where, "" if address in finding.found + finding.where else address, _name_cpus(cpus)]
    return ", ".join(part for part in parts if part)


def _labelled(label: str, text: str, style: Style) -> list[str]:
    return _wrap(text, f"  {style.paint('faint', label.ljust(_LABEL_WIDTH))}", _LABEL_WIDTH + 2, style)


def _wrap(text: str, first: str, indent: int, style: Style) -> list[str]:
    """`text` behind `first`, which takes `indent` columns, in lines that fit the terminal."""
    width = max(style.width, _NARROWEST) - indent if style.width else len(text) + 1
    lines = textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)
    return [f"{first}{lines[0]}", *(f"{' ' * indent}{line}" for line in lines[1:])]


def _merge(findings: Iterable[Finding]) -> list[tuple[Finding, list[int]]]:
    """Findings that say the same of several CPUs become one; it keeps its address if that is the same, too."""
    merged: dict[Finding, list[Finding]] = {}
    for finding in findings:
        merged.setdefault(replace(finding, address=None, cpu=None), []).append(finding)
    return [(_join(same), [each.cpu for each in same if each.cpu is not None]) for same in merged.values()]


def _join(findings: list[Finding]) -> Finding:
    first = findings[0]
    return first if all(each.address == first.address for each in findings) else replace(first, address=None)


def _merge_reasons(reasons: Iterable[NotChecked]) -> list[tuple[str, list[int]]]:
    merged: dict[str, list[int]] = {}
    for each in reasons:
        merged.setdefault(each.reason, []).extend([] if each.cpu is None else [each.cpu])
    return list(merged.items())


def _name_cpus(cpus: list[int]) -> str:
    if not cpus:
        return ""
    return f"CPU {cpus[0]}" if len(cpus) == 1 else f"CPUs {', '.join(map(str, cpus))}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def render_rules(rules: Iterable[Rule], style: Style) -> str:
    """The catalogue, one line for each rule."""
    return "\n".join(f"{style.paint('name', rule.id)}  {_severity(rule, style)}{rule.title}" for rule in rules)


def _severity(rule: Rule, style: Style) -> str:
    return style.paint(_ROLES[rule.severity], str(rule.severity).ljust(9))


def report_to_json(
    report: Report, sources: Collection[str] = (), *, left_out: Collection[int] = (), failed: bool = False
) -> dict[str, Any]:
    """`{"failed": bool, "errors": n, "warnings": n, "notes": n, "not_checked": n, "msr_sources": [...],
    "cpus_left_out": [...], "rules": [...]}`.

    `failed` says whether the command ends as a failed one. Every rule that was asked is in `rules`.
    """
    return {
        "failed": failed,
        "errors": report.count(Severity.ERROR),
        "warnings": report.count(Severity.WARNING),
        "notes": report.count(Severity.NOTE),
        "not_checked": _count_unchecked(report),
        "msr_sources": sorted(sources),
        "cpus_left_out": sorted(left_out),
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


def render_catalogue(rules: Collection[Rule]) -> str:
    """The rules in `docs/checks.md`: a table of all of them, then a section for each, in Markdown."""
    table = "".join(f"| [{rule.id}](#{_anchor(rule)}) | {rule.severity} | {rule.title} |\n" for rule in rules)
    return f"| rule | usually | what it asks for |\n|---|---|---|\n{table}\n" + "\n".join(
        f"## {rule.id}: {rule.title}\n\n"
        f"Usually a{'n' if rule.severity is Severity.ERROR else ''} **{rule.severity}**.\n\n"
        f"{rule.why}\n\n"
        f"- Fix: {rule.fix}\n"
        f"- Source: {rule.source}\n"
        for rule in rules
    )


def _anchor(rule: Rule) -> str:
    """What Markdown makes of the section's heading: letters, digits and hyphens."""
    heading = f"{rule.id}: {rule.title}".lower().replace(" ", "-")
    return "".join(letter for letter in heading if letter.isalnum() or letter in "-_")
