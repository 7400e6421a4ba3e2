"""exogdb/trace/execlog.py: QEMU's text, whole, in pieces, interleaved and damaged."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exogdb.trace.event import Entry, Event, InHandler, Return
from exogdb.trace.execlog import LogParser, choose_log_items, decode_task_registers
from exogdb.trace.points import TracePoints
from tests.unit.trace.logtext import ENTRY, RETURN, Dump, announce

_POINTS = TracePoints(ENTRY, frozenset({RETURN}))
_QEMU_7_2 = (Path(__file__).parent / "data" / "execlog-qemu-7.2.txt").read_bytes()
_QEMU_POINTS = TracePoints(0x1000F0, frozenset({0x100117}))


def test_the_log_that_qemu_wrote() -> None:
    parser = LogParser(_QEMU_POINTS, {0x105000: 0})
    first, second, third, fourth = parser.feed(_QEMU_7_2, 42)
    assert isinstance(first, Entry)
    assert isinstance(second, Return)
    assert (first.cpu, first.number, first.arguments) == (0, 4, (1, 2, 3, 0, 0, 0))
    assert (first.space, first.user_rip, first.user_rsp, first.time_ns) == (0x111000, 0x1000E7, 0x116000, 42)
    assert (second.result, second.kernel_stack, second.space) == (0x8C1FE8, 0x116FC0, 0x111000)
    assert isinstance(first, Entry)
    assert isinstance(second, Return)
    assert first.preserved == second.preserved
    assert (type(third), type(fourth)) == (Entry, Return)
    damage = parser.finish()
    assert (damage.lost, damage.foreign_lines, damage.unfiltered, damage.cpu_unknown) == (0, 0, 0, 0)


@given(st.lists(st.integers(1, 700), max_size=40))
def test_pieces_of_any_size_give_the_same_events(sizes: list[int]) -> None:
    whole = list(LogParser(_QEMU_POINTS).feed(_QEMU_7_2))
    parser, position = LogParser(_QEMU_POINTS), 0
    events: list[Event] = []
    for size in sizes:
        events += parser.feed(_QEMU_7_2[position : position + size])
        position += size
    events += parser.feed(_QEMU_7_2[position:])
    assert events == whole
    assert parser.finish().lost == 0


def test_arguments_are_in_the_order_of_the_system_call_convention() -> None:
    dump = Dump(rax=200, rdi=1, rsi=2, rdx=3, r10=4, r8=5, r9=6, rcx=0x400005, rsp=0x7000)
    (event,) = LogParser(_POINTS).feed(dump.text)
    assert isinstance(event, Entry)
    assert event.arguments == (1, 2, 3, 4, 5, 6)


def test_a_dump_of_a_cpu_with_more_registers_is_read() -> None:
    more = b"".join(
        b"R%d=%016x R%d=%016x R%d=%016x R%d=%016x\n" % (n, 0, n + 1, 0, n + 2, 0, n + 3, 0)
        for n in (16, 20, 24, 28)
    )
    text = Dump(rax=7).text.replace(b"RIP=", more + b"RIP=")
    (event,) = LogParser(_POINTS).feed(text)
    assert isinstance(event, Entry)
    assert event.number == 7


def test_a_block_that_was_started_over_is_marked() -> None:
    """An interrupt request makes QEMU leave a block before its first instruction, and write it down again."""
    parser = LogParser(_POINTS, {0xA000: 0, 0xB000: 1})
    entry, other = Dump(rax=4, task=0xA000), Dump(rax=4, task=0xB000)
    after = Dump(rip=RETURN, rax=7, task=0xA000)
    events = list(parser.feed(entry.text + other.text + entry.text + after.text + after.text + entry.text))
    assert [(type(event), event.repeats) for event in events if not isinstance(event, InHandler)] == [
        (Entry, False),
        (Entry, False),
        (Entry, True),
        (Return, False),
        (Return, True),
        (Entry, False),
    ]


def test_registers_that_the_stub_changes_are_not_compared() -> None:
    points = TracePoints(ENTRY, frozenset({RETURN}), frozenset({"rbp", "r12", "r13", "r14", "r15"}))
    first, second = LogParser(points).feed(Dump(rbx=1).text + Dump(rip=RETURN, rbx=2).text)
    assert isinstance(first, Entry)
    assert isinstance(second, Return)
    assert first.preserved == second.preserved


def test_an_entry_waits_for_the_kernels_page_tables() -> None:
    """The stub loads CR3; both points then name the address space that the return will show."""
    link = ENTRY + 0x1D
    parser = LogParser(TracePoints(ENTRY, frozenset({RETURN}), links=frozenset({link})), {0xA000: 0, 0xB000: 1})
    text = [
        Dump(rax=4, cr3=0x1000, task=0xA000),
        Dump(rax=5, cr3=0x3000, task=0xB000),
        Dump(rip=link, cr3=0x2000, task=0xA000),
        Dump(rip=RETURN, cr3=0x2000, task=0xA000),
    ]
    events = list(parser.feed(b"".join(dump.text for dump in text)))
    assert [(type(event), event.space) for event in events] == [(Entry, 0x2000), (Return, 0x2000)]
    assert [(entry.number, entry.space) for entry in parser.take_held()] == [(5, 0x3000)]


def test_the_handler_of_an_exec_is_seen_on_its_kernel_stack() -> None:
    handler = ENTRY + 0x400
    points = TracePoints(ENTRY, frozenset({RETURN}), handlers=frozenset({handler}))
    parser = LogParser(points, {0xA000: 0, 0xB000: 1})
    (event,) = parser.feed(Dump(rip=handler, cr3=0x1000, rsp=0xF0F8, task=0xB000).text)
    assert event == InHandler(1, 0x1000, 0xF0F8)
    assert parser.finish().unfiltered == 0


def test_a_result_that_is_not_in_rax_is_unknown() -> None:
    points = TracePoints(ENTRY, frozenset({RETURN}), result_in_rax=False)
    (event,) = LogParser(points).feed(Dump(rip=RETURN, rax=7).text)
    assert isinstance(event, Return)
    assert event.result is None


def test_the_cpu_comes_from_the_task_register() -> None:
    parser = LogParser(_POINTS, {0xA000: 0, 0xB000: 1})
    events = list(parser.feed(Dump(task=0xB000).text + Dump(task=0xA000).text))
    assert [event.cpu for event in events] == [1, 0]


def test_interleaved_lines_are_put_right_by_the_task_register() -> None:
    """Two `Trace` lines, then the dumps in the other order: the line before a dump names the wrong CPU."""
    text = (
        announce(0, ENTRY) + announce(1, ENTRY) + Dump(task=0xA000, rax=10).text + Dump(task=0xB000, rax=11).text
    )
    parser = LogParser(_POINTS, {0xA000: 0, 0xB000: 1})
    events = [event for event in parser.feed(text) if isinstance(event, Entry)]
    assert [(event.cpu, event.number) for event in events] == [(0, 10), (1, 11)]
    assert parser.finish().lost == 0


def test_an_unknown_task_register_is_learned_where_there_is_no_doubt() -> None:
    text = announce(0, ENTRY) + announce(1, RETURN) + Dump(task=0xB000, rip=RETURN).text + Dump(task=0xA000).text
    parser = LogParser(_POINTS)
    assert [event.cpu for event in parser.feed(text)] == [1, 0]
    assert parser.cpu_of_task == {0xA000: 0, 0xB000: 1}


def test_a_doubtful_cpu_is_reported_and_not_guessed() -> None:
    text = announce(0, ENTRY) + announce(1, ENTRY) + Dump(task=0xA000).text + Dump(task=0xB000).text
    parser = LogParser(_POINTS)
    events = list(parser.feed(text))
    assert events[0].cpu is None
    damage = parser.finish()
    assert damage.cpu_unknown >= 1
    assert damage.lost == 0


def test_a_missing_dump_is_reported() -> None:
    parser = LogParser(_POINTS, {0xA000: 0})
    text = announce(0, ENTRY) + announce(0, RETURN) + Dump(rip=RETURN, task=0xA000).text
    assert len(list(parser.feed(text))) == 1
    assert parser.finish().lost == 1


def test_a_log_cut_off_in_the_middle_of_a_dump_is_reported() -> None:
    parser = LogParser(_POINTS)
    assert len(list(parser.feed(Dump().text + Dump().text[:500]))) == 1
    damage = parser.finish()
    assert (damage.cut_bytes, damage.lost) == (500, 1)


def test_other_text_in_the_log_is_counted_and_quoted() -> None:
    parser = LogParser(_POINTS)
    text = Dump().text + b"Servicing hardware INT=0x20\n" + Dump(rip=RETURN).text
    assert len(list(parser.feed(text))) == 2
    damage = parser.finish()
    assert (damage.foreign_lines, damage.first_foreign) == (1, "Servicing hardware INT=0x20")


def test_a_dump_at_another_address_shows_that_the_filter_is_another() -> None:
    parser = LogParser(_POINTS)
    assert list(parser.feed(Dump(rip=0xFFFFFFFF80123456).text)) == []
    assert parser.finish().unfiltered == 1


def test_endless_other_text_does_not_pile_up() -> None:
    parser = LogParser(_POINTS)
    for _ in range(100):
        assert list(parser.feed(b"guest error\n" * 1000)) == []
    assert len(parser._rest) < 20_000
    parser.finish()
    assert parser.damage.foreign_lines == 100_000


def test_the_monitor_ends_its_lines_as_a_terminal_does() -> None:
    text = "\r\nCPU#0\r\nRAX=0\r\nTR =0030 a000 67 0\r\nCPU#1\r\nTR =0030 b000 67 0\r\n"
    assert decode_task_registers(text) == {0xA000: 0, 0xB000: 1}


@pytest.mark.parametrize("shared", [0, 0xFFFF800000105000])
def test_a_task_register_that_two_cpus_share_tells_nothing(shared: int) -> None:
    text = "".join(f"CPU#{cpu}\nRAX=0\nTR =0030 {shared:016x} 00000067 00008900\n\n" for cpu in (0, 1))
    assert decode_task_registers(text) == {}


class _Code:
    """Two pages of nothing from ENTRY's page on, and a jump to `target` near its beginning."""

    def __init__(self, target: int = 0) -> None:
        jump = b"\xe9" + (target - ENTRY - 0x105 & 0xFFFF_FFFF).to_bytes(4, "little") if target else b""
        self._code = (b"\xcc" * 0x100 + jump).ljust(8192, b"\xcc")

    def read(self, address: int, size: int) -> bytes:
        return self._code[address - ENTRY :][:size]


def test_what_slows_the_guest_is_logged_only_where_it_is_needed() -> None:
    handler = ENTRY + 0x400
    points = TracePoints(ENTRY, frozenset({RETURN}), handlers=frozenset({handler}))
    assert choose_log_items(points, _Code(), tells_cpus=True) == "cpu"
    assert choose_log_items(points, _Code(), tells_cpus=False) == "exec,cpu"
    for point in (ENTRY, RETURN, handler):
        assert choose_log_items(points, _Code(point), tells_cpus=True) == "cpu,nochain"
