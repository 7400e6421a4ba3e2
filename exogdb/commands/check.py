"""`exo-syscall check`: the doctor."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable

from exogdb.abi.check import RULES, find_rule
from exogdb.abi.check.facts import Facts
from exogdb.abi.check.rule import Report, Rule, Severity, run_rules
from exogdb.commands.completion import complete_list
from exogdb.commands.registry import Output, command
from exogdb.errors import UsageError
from exogdb.reading import Reading
from exogdb.target.check.check import read_facts
from exogdb.target.session import require_guest
from exogdb.view.check import render_report, render_rules, report_to_json, rules_to_json, summarize

__all__: list[str] = []

_NEVER = "never"


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--rule", action="append", default=[], metavar="ID")
    parser.add_argument("--ignore", action="append", default=[], metavar="ID")
    parser.add_argument("--fail-on", default="error", choices=[*map(str, Severity), _NEVER])
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--list", action="store_true")


def _complete(token: str) -> Iterable[str]:
    return complete_list(token, (rule.id for rule in RULES))


@command(
    "exo-syscall check",
    add_arguments=_add_arguments,
    complete={"--rule": _complete, "--ignore": _complete},
    needs_guest=False,
)
def exo_syscall_check(options: Namespace) -> Output:
    """Examine the system-call path; say what is wrong with it.

    Usage: exo-syscall check [--rule ID[,ID]]... [--ignore ID[,ID]]...
                             [--fail-on SEV] [--strict] [--all] [--json]
           exo-syscall check --list [--json]
    Example: exo-syscall check --ignore EXO061

    Every rule has an ID that never changes. A finding says what was found, what
    was expected, why it matters and how to fix it; a rule whose input cannot be
    read is `not checked`, never sound. Looking changes nothing in the guest,
    except that without QMP the MSRs are read by RDMSR executed there; the report
    then says so.

    --rule ID      ask only these rules
    --ignore ID    ask all but these
    --fail-on SEV  end as a failed command if a finding is at least this bad: error
                   (the default), warning, note or never. `gdb -batch` then exits
                   with status 1 if this was its last command
    --strict       fail also if a rule could not be checked, in whole or in part
    --all          name the sound rules too
    --list         print the catalogue; no guest is needed
    """
    rules = _choose(options.rule, options.ignore)
    if options.list:
        return Output(lambda style: render_rules(rules, style), lambda: rules_to_json(rules))
    facts = read_facts(require_guest())
    report, sources = run_rules(rules, facts), _msr_sources(facts)
    failure = _failure(report, options.fail_on, strict=options.strict)
    return Output(
        lambda style: render_report(
            report, style, sources=sources, left_out=facts.left_out, show_sound=options.all
        ),
        lambda: report_to_json(report, sources, left_out=facts.left_out, failed=bool(failure)),
        failure=failure,
    )


def _msr_sources(facts: Facts) -> set[str]:
    return {value.source for cpu in facts.cpus for value in cpu.msrs.values() if isinstance(value, Reading)}


def _choose(wanted: list[str], ignored: list[str]) -> list[Rule]:
    chosen, left_out = _parse_rules(wanted) or list(RULES), _parse_rules(ignored)
    rules = [rule for rule in dict.fromkeys(chosen) if rule not in left_out]
    if not rules:
        raise UsageError("every rule that was asked for is ignored, too: nothing is left to check")
    return rules


def _parse_rules(arguments: list[str]) -> list[Rule]:
    rules = []
    for name in ",".join(arguments).split(",") if arguments else []:
        rule = find_rule(name.strip())
        if rule is None:
            raise UsageError(f"there is no rule {name.strip()!r}: `exo-syscall check --list` names them")
        rules.append(rule)
    return rules


def _failure(report: Report, threshold: str, *, strict: bool) -> str:
    is_bad = threshold != _NEVER and report.worst is not None and report.worst >= Severity[threshold.upper()]
    if is_bad or (strict and not report.is_complete):
        return f"exo-syscall check: {summarize(report)}"
    return ""
