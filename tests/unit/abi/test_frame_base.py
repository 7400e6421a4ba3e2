"""exogdb/abi/frame_base.py: where on a kernel stack a call in progress is."""

from exogdb.abi.frame_base import (
    find_call_top,
    find_frame_base,
    find_link,
    find_return_slot,
    find_saved_number,
    find_top_above,
    holds_call,
    read_saved_word,
    read_stack_top,
)
from exogdb.abi.stub.entry import find_entry_path
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.abi.stub.location import InFrame
from tests.unit.abi.stub_fixture import StubMemory, assemble_stub

STACK = 0xFFFF900000000000
TOP = STACK + 0x1000


def analyse(name: str) -> EntryPath:
    stub = assemble_stub(name)
    return find_entry_path(stub.memory, stub.labels["syscall_entry"])


def stack_with(path: EntryPath, value: int) -> StubMemory:
    slot = find_return_slot(path, TOP)
    assert slot is not None
    content = bytearray(0x1000)
    content[slot - STACK : slot - STACK + 8] = value.to_bytes(8, "little")
    return StubMemory(STACK, bytes(content))


def test_the_top_is_what_the_kernels_slot_holds() -> None:
    block = StubMemory(0xFFFF800000000000, TOP.to_bytes(8, "little"))
    assert read_stack_top(analyse("seed"), 0xFFFF800000000000, block) == TOP


def test_the_return_address_lies_below_frame_and_scratch() -> None:
    assert find_return_slot(analyse("seed"), TOP) == TOP - 72
    assert find_return_slot(analyse("shifted"), TOP) == TOP - 88
    assert find_frame_base(analyse("shifted"), TOP) == TOP - 64


def test_a_call_is_in_progress_while_its_return_address_is_there() -> None:
    path = analyse("shifted")
    assert path.dispatcher is not None
    returned_to = path.dispatcher.return_address
    assert holds_call(path, TOP, stack_with(path, returned_to))
    assert not holds_call(path, TOP, stack_with(path, returned_to + 1))
    assert not holds_call(path, TOP, StubMemory(0, b""))


def test_the_top_is_found_from_deep_inside_the_stack() -> None:
    path = analyse("today")
    assert path.dispatcher is not None
    stack = stack_with(path, path.dispatcher.return_address)
    assert find_top_above(path, STACK + 0x123, stack) == TOP
    assert find_top_above(path, TOP - 8, stack) is None


def test_a_top_that_was_given_away_is_found_by_the_return_address() -> None:
    path = analyse("exchange")
    assert path.dispatcher is not None
    stack = stack_with(path, path.dispatcher.return_address)
    assert find_call_top(path, STACK + 0x800, 0, stack) == TOP
    assert find_call_top(path, TOP - 8, 0, stack) is None


def test_the_stubs_copy_of_the_number_is_told_where_the_dispatcher_begins() -> None:
    assert find_saved_number(analyse("today")) == InFrame("rdi", 0), "the last push, and a pointer to it"
    assert find_saved_number(analyse("seed")) is None, "nothing is saved"


def test_the_stubs_copy_of_the_number_is_read_if_the_call_returns_to_the_stub() -> None:
    path = analyse("today")
    slot = find_return_slot(path, TOP)
    assert path.dispatcher is not None
    assert slot is not None
    block = StubMemory(0xFFFF800000000000, TOP.to_bytes(8, "little") * 16)

    def read(returns_to: int, at: int) -> int | None:
        content = bytearray(stack_with(path, returns_to).content)
        base = find_frame_base(path, TOP) - STACK
        content[base : base + 8] = (101).to_bytes(8, "little")
        stack = StubMemory(STACK, bytes(content))

        class Both:
            def read(self, address: int, size: int) -> bytes:
                return (stack if address >= STACK else block).read(address, size)

        return read_saved_word(path, at, block.base, Both())

    assert read(path.dispatcher.return_address, slot) == 101
    assert read(path.dispatcher.return_address + 1, slot) is None, "somebody else called"
    assert read(path.dispatcher.return_address, slot - 16) is None


def test_a_stack_of_its_own_that_points_back_to_the_call_is_recognised() -> None:
    path = analyse("today")
    assert path.dispatcher is not None
    slot = find_return_slot(path, TOP)
    assert slot is not None
    other = STACK + 0x10000
    words = {other + 0x80: 0x1234, other + 0xF8: STACK + 0x700}
    content = stack_with(path, path.dispatcher.return_address).content

    class Both:
        def read(self, address: int, size: int) -> bytes:
            if other <= address < other + 0x100:
                return words.get(address, 0).to_bytes(8, "little")
            return StubMemory(STACK, content).read(address, size)

    assert find_link(other, TOP, slot, Both()) == other + 0xF8
    words[other + 0xF8] = TOP - 8  # above the return address: an interrupt in user mode
    assert find_link(other, TOP, slot, Both()) is None
