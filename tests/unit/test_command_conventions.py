"""Every GDB command has help, a test, a page in docs/commands, and a line in the README and in `COMMANDS`."""

import ast

import pytest

from exogdb import commands
from exogdb.commands.help_text import read_help
from tests.harness.command_table import command_rows
from tests.harness.commands import RegisteredCommand, for_each_command
from tests.harness.kernel import ROOT
from tests.harness.source import for_each_module
from tests.harness.transcript import for_each_block

COMMANDS = list(for_each_command())
# It asks before it writes, which only a person can answer.
NOT_SHOWN = {"exo-msr write"}
WIDEST = 79
SHOWN = [one for one in COMMANDS if not one.is_pure_prefix]


def name_of(one: RegisteredCommand) -> str:
    return one.name


def test_the_three_fixed_commands_are_there() -> None:
    assert {one.name for one in COMMANDS} >= {"exo-msr", "exo-gs", "exo-syscall"}


def test_the_table_has_every_command_with_its_file() -> None:
    assert {one.name: one.module.path.stem for one in COMMANDS} == commands.COMMANDS


@pytest.mark.parametrize("one", COMMANDS, ids=name_of)
def test_help_is_read_without_importing_the_command(one: RegisteredCommand) -> None:
    assert one.function == one.name.replace("-", "_").replace(" ", "_")
    assert read_help(one.module.path.stem, one.function) == one.help_text


def test_the_table_has_every_function_with_its_file() -> None:
    for name, file in commands.FUNCTIONS.items():
        (module,) = (each for each in for_each_module("exogdb/commands") if each.path.stem == file)
        (function,) = (each for each in module.functions if each.name == name)
        assert read_help(file, name) == ast.get_docstring(function)
        assert f"Usage: ${name}(" in read_help(file, name)


@pytest.mark.parametrize("one", COMMANDS, ids=name_of)
def test_help_has_a_summary_a_usage_and_an_example(one: RegisteredCommand) -> None:
    first = one.help_text.splitlines()[0]
    assert first.endswith("."), "GDB shows the first line, up to its full stop, in lists of commands"
    assert f"Usage: {one.name}" in one.help_text
    assert f"Example: {one.name}" in one.help_text


@pytest.mark.parametrize("one", COMMANDS, ids=name_of)
def test_help_fits_a_terminal_of_80_columns(one: RegisteredCommand) -> None:
    listed = f"{one.name} -- {one.help_text.splitlines()[0]}"  # as `help exo-syscall` lists it
    too_wide = [line for line in (listed, *one.help_text.splitlines()) if len(line) > WIDEST]
    assert not too_wide, f"GDB prints help as it is: break these lines of the docstring at {WIDEST} columns"


@pytest.mark.parametrize("one", SHOWN, ids=name_of)
def test_a_test_types_the_command(one: RegisteredCommand) -> None:
    tests = list(for_each_module("tests/integration"))
    assert any(one.name in test.text for test in tests), "see step 5 in CONTRIBUTING.md"


@pytest.mark.parametrize("one", SHOWN, ids=name_of)
def test_a_page_describes_the_command(one: RegisteredCommand) -> None:
    pages = [ROOT / "docs" / "commands" / f"{page}.md" for page in one.pages]
    described = any(page.is_file() and one.name in page.read_text() for page in pages)
    assert described, f"none of {one.pages} in docs/commands, see step 6 in CONTRIBUTING.md"


@pytest.mark.parametrize("one", SHOWN, ids=name_of)
def test_a_page_shows_the_command_in_a_transcript(one: RegisteredCommand) -> None:
    pages = [ROOT / "docs" / "commands" / f"{page}.md" for page in one.pages]
    shown = [text for page in pages if page.is_file() for text in for_each_block(page.read_text())]
    if one.name not in NOT_SHOWN:
        assert any(one.name in text for text in shown), (
            "`<!-- transcript` and `make transcripts`, see CONTRIBUTING.md"
        )


@pytest.mark.parametrize("row", command_rows())
def test_the_readme_has_a_row_for_the_command(row: str) -> None:
    assert row in (ROOT / "README.md").read_text().splitlines(), "`make transcripts` writes the table anew"
