"""docs/checks.md, "Each rule broken and kept": what shows each rule, taken from the tests themselves."""

from pathlib import Path

from exogdb.abi.check import RULES
from tests.harness.kernel import ROOT
from tests.integration.test_check import AT_FIRST_LINE, NOTES_OF_THE_DESIGN, OF_THE_DESIGN, PLANTED, SEVERAL
from tests.integration.test_check_planted import ONE_BY_ONE, PLANTED_HERE
from tests.unit.abi.check.test_stubs import LEFT_FLAGS, MISTAKES

CATALOGUE = ROOT / "docs" / "checks.md"
BEGIN, END = "<!-- shown -->\n\n", "\n<!-- end of shown -->\n"
# What keeps a rule that the reference kernel breaks itself, or cannot break.
KEPT = {
    "EXO006": "Linux on an AMD CPU",
    "EXO007": "Linux on a CPU that needs page-table isolation",
    "EXO011": "kernel `today`",
    "EXO014": "kernel `today`",
    "EXO022": "Linux",
    "EXO034": "assembled stub `sound.s`",
}


def test_every_rule_is_broken_by_something_that_was_built() -> None:
    assert [rule.id for rule in RULES if not find_broken(rule.id)] == []
    assert set(KEPT) - {"EXO007"} == OF_THE_DESIGN | NOTES_OF_THE_DESIGN


def test_the_page_says_what_shows_each_rule() -> None:
    text = CATALOGUE.read_text()
    assert text == with_table(text), "run `python -m tests.unit.abi.check.test_shown`"


def find_broken(rule: str) -> list[str]:
    """What breaks `rule`: whole kernels first, then what is planted into a running one, then assembled stubs."""
    kernels = [f"kernel `{variant}`" for variant, _, rules in PLANTED if rule in rules]
    kernels += [f"kernel `{variant}`" for variant, rules in SEVERAL.items() if rule in rules]
    own = ["the reference kernel itself"] if rule in OF_THE_DESIGN | NOTES_OF_THE_DESIGN else []
    early = ["the reference kernel at `kernel_main`"] if rule in AT_FIRST_LINE else []
    planted = [f"planted: {name}" for name, rules in (PLANTED_HERE | ONE_BY_ONE).items() if rule in rules.split()]
    mistakes = [
        f"stub: {name}" for name, (_, _, rules) in (MISTAKES | LEFT_FLAGS).items() if rule in rules.split()
    ]
    return own + kernels + planted + mistakes + early


def with_table(text: str) -> str:
    """`text` with the table anew."""
    front, _, rest = text.partition(BEGIN)
    _, _, back = rest.partition(END)
    rows = ["| rule | broken in | kept in |", "|---|---|---|"]
    for rule in RULES:
        broken = find_broken(rule.id)
        more = f" and {len(broken) - 2} more" if broken[2:] else ""
        rows.append(f"| {rule.id} | {'; '.join(broken[:2])}{more} | {KEPT.get(rule.id, 'the reference kernel')} |")
    return f"{front}{BEGIN}" + "\n".join(rows) + f"\n{END}{back}"


def write_table(page: Path) -> None:
    """Write the table into `page` anew."""
    page.write_text(with_table(page.read_text()))


if __name__ == "__main__":
    write_table(CATALOGUE)
