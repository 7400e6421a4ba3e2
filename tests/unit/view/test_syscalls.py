"""The table of system calls as text."""

from exogdb.abi.dispatch.place import Cost, Place, PlaceKind
from exogdb.abi.numbers import SyscallNumber
from exogdb.view.plan import PlaceLine
from exogdb.view.style import Style
from exogdb.view.syscalls import SyscallList, SyscallRow, list_to_json, render_list

SYMBOL = "core::ops::function::FnOnce::call_once<exo_os::syscall::dispatch::get_handler::{closure_env#2}>"


def a_row(number: int, name: str, cost: Cost) -> SyscallRow:
    place = Place(number, PlaceKind.ADDRESS, 0xFFFFFFFF80110240, cost, frozenset({number}), None, (), 0)
    entry = SyscallNumber(number, name, f"SYS_{name.upper()}", f"sys_{name}", "process")
    return SyscallRow(entry, (1,) if number == 101 else (), PlaceLine(name, place, SYMBOL))


LISTING = SyscallList(
    [a_row(101, "ipc_send", Cost.FREE), a_row(200, "mmap", Cost.STOP_PER_MERGED_CALL)], "numbers.rs"
)


def test_places_are_shown_where_there_is_room() -> None:
    text = render_list(LISTING, Style(width=0))
    assert f"free                                                 0xffffffff80110240 ({SYMBOL})" in text
    assert "wider terminal" not in text


def test_every_line_fits_80_columns_and_no_column_but_the_place_is_lost() -> None:
    lines = render_list(LISTING, Style(width=80)).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["number", "name", "handler", "group", "breakpoint", "cost"]
    assert lines[1].split() == ["101", "ipc_send", "sys_ipc_send", "process", "1", "free"]
    assert "wider terminal" in lines[-1]


def test_without_a_plan_the_reason_is_given_instead_of_costs() -> None:
    rows = [SyscallRow(row.entry, row.breakpoints, None) for row in LISTING.rows]
    listing = SyscallList(rows, "numbers.rs", "no guest is connected")
    text = render_list(listing, Style(width=80))
    assert "Places unavailable (no guest is connected)." in text
    assert "cost" not in text
    assert list_to_json(listing)["syscalls"][0]["plan"] == {"unavailable": "no guest is connected"}
