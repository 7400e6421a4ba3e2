"""exogdb/abi/frame.py and frame_edit.py: frames from bytes, and where a change must be written."""

import pytest

from exogdb.abi.frame import Moment, decode_saved_frame, decode_stub_frame
from exogdb.abi.frame_base import find_frame_base
from exogdb.abi.frame_edit import plan_edit
from exogdb.abi.stub.disassembly import GENERAL_REGISTERS
from exogdb.abi.stub.entry import find_entry_path
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.abi.stub.stub_state import StubState
from exogdb.errors import UsageError
from exogdb.reading import Reading, Unavailable
from tests.unit.abi.stub_fixture import StubMemory, assemble_stub

TOP = 0xFFFF900000001000
GS = 0xFFFF800000000000


def analyse(name: str) -> EntryPath:
    stub = assemble_stub(name)
    return find_entry_path(stub.memory, stub.labels["syscall_entry"])


def frame_memory(count: int) -> StubMemory:
    """`count` words below TOP: the lowest holds 0x100, the next 0x101 and so on."""
    words = b"".join((0x100 + position).to_bytes(8, "little") for position in range(count))
    return StubMemory(TOP - len(words), words)


def state_at(path: EntryPath, text: str) -> StubState:
    return next(state for state in path.states.values() if state.text == text)


def test_every_register_has_its_slots_address_and_value() -> None:
    frame = decode_saved_frame(analyse("today"), TOP, None, None, frame_memory(16))
    rip, rsp, rax = frame.find("rip"), frame.find("rsp"), frame.find("rax")
    assert frame.base == TOP - 128
    assert rip is not None
    assert rsp is not None
    assert rax is not None
    assert (rip.address, rip.value) == (TOP - 8, Reading(0x10F, "memory"))
    assert (rsp.address, rsp.value) == (TOP - 72, Reading(0x107, "memory"))
    assert rax.value == Reading(0x100, "memory")


def test_user_rsp_comes_from_the_per_cpu_block_or_not_at_all() -> None:
    path = analyse("seed")

    class Both:
        def read(self, address: int, size: int) -> bytes:
            block = StubMemory(GS, bytes(8) + (0x7FFF0000).to_bytes(8, "little"))
            return (block if address < TOP - 64 else frame_memory(8)).read(address, size)

    rsp = decode_saved_frame(path, TOP, None, GS, Both()).find("rsp")
    assert rsp is not None
    assert (rsp.address, rsp.value) == (GS + 8, Reading(0x7FFF0000, "memory"))
    parked = decode_saved_frame(path, TOP, Unavailable("kept elsewhere"), None, frame_memory(8)).find("rsp")
    assert parked is not None
    assert parked.value == Unavailable("kept elsewhere")


def test_memory_that_cannot_be_read_is_unavailable_not_zero() -> None:
    frame = decode_saved_frame(analyse("seed"), TOP, None, None, StubMemory(0, b""))
    assert all(isinstance(register.value, Unavailable) for register in frame.registers)


def test_in_the_stub_rcx_and_r11_are_gone() -> None:
    path = analyse("seed")
    registers = dict.fromkeys(GENERAL_REGISTERS, 7)
    frame = decode_stub_frame(state_at(path, "swapgs"), None, registers, GS, StubMemory(0, b""))
    rcx, rip = frame.find("rcx"), frame.find("rip")
    assert rcx is not None
    assert rip is not None
    assert rcx.value == Unavailable("SYSCALL put rip there")
    assert rip.value == Reading(7, "gdb")


def test_an_edit_writes_every_copy_that_is_still_read() -> None:
    path = analyse("seed")
    base = find_frame_base(path, TOP)
    early = plan_edit("rip", 0x1000, path, Moment.IN_STUB, base, state_at(path, "push rcx"), GS, 48, 0)
    assert (early.addresses, early.registers) == ((), ("rcx",))
    late = plan_edit("rip", 0x1000, path, Moment.IN_STUB, base, state_at(path, "mov rcx, r10"), GS, 48, 0)
    assert (late.addresses, late.registers) == ((TOP - 8,), ("rcx",))
    deep = plan_edit("rip", 0x1000, path, Moment.IN_CALL, base, None, GS, 48, 0)
    assert (deep.addresses, deep.registers) == ((TOP - 8,), ())
    assert plan_edit("rsp", 0x1000, path, Moment.IN_CALL, base, None, GS, 48, 0).addresses == (GS + 8,)


@pytest.mark.parametrize(
    ("name", "value", "moment", "message"),
    [
        ("rip", 0x800000000000, Moment.IN_CALL, "not canonical"),
        ("rip", 0x1000, Moment.USER, "no system call is in progress"),
        ("rip", 0x1000, Moment.NO_CALL, "no system call is in progress"),
        ("ret", 1, Moment.IN_CALL, "the dispatcher will overwrite it"),
        ("arg1", 1, Moment.IN_CALL, "the dispatcher may have taken it already"),
        ("rbx", 1, Moment.IN_CALL, "cannot be set"),
    ],
)
def test_what_would_fault_or_have_no_effect_is_refused(
    name: str, value: int, moment: Moment, message: str
) -> None:
    path = analyse("seed")
    with pytest.raises(UsageError, match=message):
        plan_edit(name, value, path, moment, find_frame_base(path, TOP), None, GS, 48, 0)


def test_a_57_bit_address_is_canonical_where_the_cpu_has_them() -> None:
    path = analyse("seed")
    base = find_frame_base(path, TOP)
    assert plan_edit("rip", 0x800000000000, path, Moment.IN_CALL, base, None, GS, 57, 0).addresses


def test_registers_kept_in_the_per_cpu_block_are_part_of_the_frame() -> None:
    path = analyse("per_cpu_save")
    block = StubMemory(GS, b"".join(number.to_bytes(8, "little") for number in range(0x100, 0x110)))
    frame = decode_saved_frame(path, TOP, None, GS, block)
    found = {register.name: (register.address, register.value) for register in frame.registers}
    assert found == {
        name: (GS + 8 * place, Reading(0x100 + place, "memory"))
        for name, place in (("rip", 5), ("rflags", 6), ("rsp", 4), ("rbx", 7), ("rbp", 8))
    }
    parked = decode_saved_frame(path, TOP, None, None, block)
    assert all(isinstance(register.value, Unavailable) for register in parked.registers)
