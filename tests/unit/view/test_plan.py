"""The answer of `exo-syscall break` as text."""

import re
from dataclasses import replace

import pytest

from exogdb.abi.dispatch.place import Cost, Place, PlaceKind
from exogdb.abi.dispatch.trace import TableRead
from exogdb.abi.stub.location import InRegister, OnStack
from exogdb.view.plan import BreakpointReport, PlaceLine, breakpoint_to_json, render_breakpoint
from exogdb.view.style import Style

SYMBOL = "exo_os::calls::ipc::sys_ipc_send"
DOUBT = "the entry is taken from the symbol syscall_entry, which is a guess"


def a_report(doubts: tuple[str, ...] = ()) -> BreakpointReport:
    entry = TableRead(0xFFFFFFFF80114348, 8)
    place = Place(
        *(101, PlaceKind.TABLE_ENTRY, 0xFFFFFFFF80110740, Cost.FREE, frozenset({101}), None, (), 0),
        entry=entry,
        reasons=("only this number reads the table entry at 0xffffffff80114348, which nothing else does",),
    )
    return BreakpointReport(2, False, "ipc_send", [PlaceLine("ipc_send", place, SYMBOL)], doubts)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("explain", [False, True])
def test_lines_fit_the_terminal_and_no_word_is_torn(*, colour: bool, explain: bool) -> None:
    report = a_report((DOUBT,))
    narrow = render_breakpoint(report, Style(colour=colour, width=80), explain=explain)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", narrow).splitlines()
    assert max(map(len, lines)) <= 80
    wide = render_breakpoint(report, Style(width=0), explain=explain)
    assert " ".join(lines).split() == wide.split()


def test_doubts_about_the_entry_path_are_told() -> None:
    assert render_breakpoint(a_report((DOUBT,)), Style(width=0), explain=False).endswith(f"not sure: {DOUBT}")
    assert breakpoint_to_json(a_report((DOUBT,)))["doubts"] == [DOUBT]
    assert "not sure" not in render_breakpoint(a_report(), Style(), explain=False)


def test_what_a_stop_is_checked_by_is_explained() -> None:
    gone = Place(101, PlaceKind.ADDRESS, 0x1000, Cost.FREE, frozenset({101}), None, (), 0)
    shown = {
        "that no other number comes by is the proof": gone,
        "that entry is watched, tells the number": replace(gone, entry=TableRead(0x2000, 8)),
        "the number that the entry stub saved is compared": replace(gone, is_number_saved=True),
        "the number that the dispatcher keeps in [rsp+0x8] is compared": replace(gone, held_at=OnStack(8)),
        "the call is known here by where it returns to": replace(gone, kind=PlaceKind.BEHIND_DISPATCHER),
        "the number is read from rax": replace(gone, number_at=InRegister("rax")),
    }
    for sentence, place in shown.items():
        report = BreakpointReport(1, False, "101", [PlaceLine("ipc_send", place, "")])
        text = render_breakpoint(report, Style(width=0), explain=True)
        assert [each for each in shown if each in text] == [sentence]
