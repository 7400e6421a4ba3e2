"""The README's table of commands, made from their help texts: `make transcripts` writes it anew."""

import re

from tests.harness.commands import RegisteredCommand, for_each_command
from tests.harness.kernel import ROOT

__all__ = ["command_rows", "write_command_table"]

TABLE = re.compile(r"(\| command \| what it shows or does \|\n\|---\|---\|\n)((?:\| `exo-.*\n)*)")


def command_rows() -> list[str]:
    """One row for each command, sorted by name: its summary, and the page that describes it."""
    shown = sorted((one for one in for_each_command() if not one.is_pure_prefix), key=lambda one: one.name)
    return [_row(one) for one in shown]


def write_command_table() -> None:
    """Replace the rows in README.md."""
    readme = ROOT / "README.md"
    rows = "".join(f"{row}\n" for row in command_rows())
    readme.write_text(TABLE.sub(lambda found: found[1] + rows, readme.read_text()))


def _row(command: RegisteredCommand) -> str:
    summary = command.help_text.splitlines()[0].removesuffix(".")
    page = next((page for page in command.pages if (ROOT / "docs" / "commands" / f"{page}.md").is_file()), None)
    link = f" ([more](docs/commands/{page}.md))" if page else ""
    return f"| `{command.name}` | {summary}{link} |"


if __name__ == "__main__":
    write_command_table()
