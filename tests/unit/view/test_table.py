"""Tables fit the terminal, whatever is in them."""

from exogdb.view.style import PLAIN, Style
from exogdb.view.table import Cell, render_sentence, render_table, table_width

HEADINGS = ("nr", "name", "used by")
ROWS = [
    [Cell("1"), Cell("code", "name"), Cell("one two three four five six seven eight")],
    [Cell("100"), Cell("data", "name"), Cell("")],
]


def test_a_table_that_fits_is_one_line_a_row() -> None:
    assert render_table(HEADINGS, ROWS, Style(width=0), numbers=[0]).splitlines() == [
        " nr  name  used by",
        "  1  code  one two three four five six seven eight",
        "100  data",
    ]
    assert table_width(HEADINGS, ROWS) == len("  1  code  one two three four five six seven eight")


def test_the_columns_that_may_be_wrapped_are() -> None:
    lines = render_table(HEADINGS, ROWS, Style(width=30), {2: 10}).splitlines()
    assert max(map(len, lines)) <= 30
    assert [line[11:] for line in lines[1:4]] == ["one two three four", "five six seven", "eight"]
    assert lines[-1] == "100  data"


def test_no_column_gets_narrower_than_its_least_width() -> None:
    lines = render_table(HEADINGS, ROWS, Style(width=5), {2: 10}).splitlines()
    assert max(map(len, lines)) == 3 + 2 + 4 + 2 + 10


def test_every_line_of_a_wrapped_cell_has_its_own_colour() -> None:
    row = [Cell("aaa bbb", "good")]
    coloured = render_table(["x"], [row], Style(colour=True, width=4), {0: 4}).splitlines()
    assert coloured[1:] == ["\x1b[32maaa\x1b[0m", "\x1b[32mbbb\x1b[0m"]
    assert "\x1b" not in render_table(["x"], [row], PLAIN)


def test_a_symbol_is_broken_between_its_parts() -> None:
    rows = [[Cell("exo_os::arch::trap_stubs+224")]]
    assert render_table(["symbol"], rows, Style(width=18), {0: 12}).splitlines()[1:] == [
        "exo_os::arch::",
        "trap_stubs+224",
    ]
    assert render_table(["symbol"], rows, Style(width=12), {0: 12}).splitlines()[1:] == [
        "exo_os::",
        "arch::",
        "trap_stubs",
        "+224",
    ]


def test_a_sentence_is_broken_between_words() -> None:
    assert render_sentence("one two three", Style(width=8)) == "one two\nthree"
    assert render_sentence("one two three", Style(width=0)) == "one two three"
    assert render_sentence("", Style(width=0)) == ""
