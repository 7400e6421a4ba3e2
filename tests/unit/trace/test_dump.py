"""exogdb/trace/dump.py: what is read by offsets is what the text says."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from exogdb.trace.dump import Dump as Found
from exogdb.trace.dump import DumpReader
from tests.unit.trace.logtext import Dump

_WORDS = st.integers(0, (1 << 64) - 1)
_ANY_DUMP = st.builds(Dump, **{each.name: _WORDS for each in dataclasses.fields(Dump)})


def _taught(text: bytes) -> tuple[DumpReader, Found]:
    reader = DumpReader()
    found = reader.find(text, 0)
    assert found is not None, text
    return reader, found[1]


def test_a_dump_unlike_any_that_was_met_is_not_read_by_offsets() -> None:
    assert DumpReader().read(Dump().text, 0) is None


@given(_ANY_DUMP, _ANY_DUMP)
def test_offsets_and_text_say_the_same(first: Dump, second: Dump) -> None:
    """The second has the first's segments, but nothing else of it."""
    second = dataclasses.replace(second, fs_base=first.fs_base, task=first.task)
    reader, _ = _taught(first.text)
    assert reader.read(b"x" + second.text, 1) == _taught(b"x" + second.text)[1]


def test_other_segments_are_looked_at() -> None:
    reader, _ = _taught(Dump(task=0xA000).text)
    other = Dump(task=0xB000, fs_base=0x7F00).text
    assert reader.read(other, 0) is None
    _, found = reader.find(other, 0) or (0, None)
    assert found is not None, other
    assert (found.segments.task, found.segments.fs_base) == (b"%016x" % 0xB000, b"%016x" % 0x7F00)
    assert reader.read(other, 0) == found


def test_dumps_of_two_shapes_are_both_known() -> None:
    """A null selector has less to say, and a CPU with APX more registers."""
    short = Dump().text.replace(b"DS =0000 0000000000000000 ffffffff 00cf1300", b"DS =0000 0000000000000000 0 0")
    long = Dump().text.replace(b"RIP=", b"R16=%016x\nRIP=" % 5)
    reader = DumpReader()
    for text in (short, long):
        assert reader.find(text, 0)
    assert [reader.read(text, 0) is not None for text in (short, long, short)] == [True] * 3


def test_a_dump_that_breaks_off_does_not_take_the_next_one_with_it() -> None:
    whole = Dump(rax=1).text
    reader, _ = _taught(whole)
    broken = whole[: whole.index(b"DR0=")]
    assert reader.read(broken + whole, 0) is None
    start, found = reader.find(broken + whole, 0) or (0, None)
    assert (start, found and found.end) == (len(broken), len(broken) + len(whole))


def test_no_part_of_a_dump_is_one() -> None:
    whole = Dump().text
    reader, _ = _taught(whole)
    assert all(reader.read(whole[:size], 0) is None for size in range(len(whole)))


def test_other_text_of_the_same_length_is_not_taken_for_a_dump() -> None:
    whole = Dump().text
    reader, _ = _taught(whole)
    assert reader.read(b"x" * len(whole), 0) is None
    assert reader.read(whole.replace(b"RAX=", b"EAX="), 0) is None
    assert reader.read(whole.replace(b"RIP=", b"EIP="), 0) is None
