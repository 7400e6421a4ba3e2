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


def test_every_line_fits_80_columns_and_says_what_was_left_out() -> None:
    lines = render_list(LISTING, Style(width=80)).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["number", "name", "group", "breakpoint", "cost"]
    assert lines[1].split() == ["101", "ipc_send", "process", "1", "free"]
    assert "wider terminal" in lines[-2]
    assert lines[-1] == "Each call's handler is called sys_ and its name."


def test_handlers_with_other_names_are_not_left_out() -> None:
    entry = SyscallNumber(200, "mmap", "SYS_MMAP", "handle_mapping", "memory")
    rows = [SyscallRow(entry, (), row.line) for row in LISTING.rows]
    lines = render_list(SyscallList(rows, "numbers.rs"), Style(width=80)).splitlines()
    assert max(map(len, lines)) <= 80
    assert "handler" in lines[0]


def test_doubts_about_the_entry_path_are_told_where_places_depend_on_it() -> None:
    doubt = "the entry is taken from the symbol syscall_entry, which is a guess"
    listing = SyscallList(LISTING.rows, "numbers.rs", doubts=(doubt,))
    assert f"not sure: {doubt}" in render_list(listing, Style(width=0))
    assert list_to_json(listing)["doubts"] == [doubt]


def test_without_a_plan_the_reason_is_given_instead_of_costs() -> None:
    rows = [SyscallRow(row.entry, row.breakpoints, None) for row in LISTING.rows]
    listing = SyscallList(rows, "numbers.rs", "no guest is connected")
    text = render_list(listing, Style(width=80))
    assert "Places unavailable (no guest is connected)." in text
    assert "cost" not in text
    assert list_to_json(listing)["syscalls"][0]["plan"] == {"unavailable": "no guest is connected"}
