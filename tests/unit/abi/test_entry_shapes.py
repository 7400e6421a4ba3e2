"""exogdb/abi/stub/entry.py: stubs of shapes that no kernel here has, and what it says where it cannot be sure."""

import pytest

from exogdb.abi.stub.entry import find_entry_path
from exogdb.abi.stub.entry_path import Dispatcher, EntryPath
from exogdb.abi.stub.location import InFrame, InRegister, OnStack
from exogdb.abi.stub.stub_state import BehindGsSlot, InGsSlot
from exogdb.abi.stub.symbolic import Gs
from tests.unit.abi.stub_fixture import assemble_stub

PUSHED = ("push_jump", "push_return", "push_thunk", "push_inline_retpoline")
SURE = (
    *PUSHED,
    "iretq",
    "exchange",
    "rdgsbase",
    "per_cpu_save",
    "tss_rsp0",
    "stores",
    "pcid",
    "retpoline",
    "fpu_area",
    "untrain",
)


def analyse(name: str) -> EntryPath:
    stub = assemble_stub(name)
    return find_entry_path(stub.memory, stub.labels["syscall_entry"])


def dispatcher_of(name: str) -> Dispatcher:
    dispatcher = analyse(name).dispatcher
    assert dispatcher is not None
    return dispatcher


def slots_of(path: EntryPath) -> dict[int, str | None]:
    return {slot.offset: slot.holds for slot in path.frame.slots}


@pytest.mark.parametrize("name", SURE)
def test_ordinary_means_leave_no_doubt(name: str) -> None:
    path = analyse(name)
    assert path.doubts == ()
    assert dispatcher_of(name).address == assemble_stub(name).labels["dispatcher"]
    assert [way.gs for way in path.exits] == [Gs.USER]


@pytest.mark.parametrize("name", SURE)
def test_at_every_instruction_rip_and_rsp_are_somewhere(name: str) -> None:
    path = analyse(name)
    places = (InRegister, InFrame, InGsSlot, BehindGsSlot)
    for state in path.states.values():
        for register in ("rip", "rsp", "rflags"):
            assert isinstance(state.registers[register], places), (state.text, register)


def test_an_exit_by_iretq_takes_five_words_from_the_frame() -> None:
    path = analyse("iretq")
    (way,) = path.exits
    assert way.kind == "iret"
    offsets = [way.registers[name].frame_offset for name in ("rip", "cs", "rflags", "rsp", "ss")]
    assert offsets == [0x38, 0x40, 0x48, 0x50, 0x58]
    assert {name for name, back in way.registers.items() if back.kind == "leaked"} == {"rcx", "r11"}


def test_an_exchanged_slot_holds_the_users_rsp_during_the_call_only() -> None:
    path = analyse("exchange")
    assert path.stack is not None
    assert (path.stack.gs_slot, path.stack.is_kept, path.user_rsp_slot) == (0, False, 0)
    *_, last_pop, exchange = (state for state in path.states.values() if state.stack == "kernel")
    assert last_pop.registers["rsp"] == exchange.registers["rsp"] == InGsSlot(0)
    assert exchange.depth == 0
    assert all(analyse(name).stack.is_kept for name in ("seed", "tss_rsp0", "pcid"))  # type: ignore[union-attr]


def test_a_slot_behind_rdgsbase_is_a_per_cpu_slot() -> None:
    path = analyse("rdgsbase")
    assert (path.user_rsp_slot, path.kernel_rsp_slot) == (0x18, 0x20)


def test_what_is_saved_in_the_per_cpu_block_is_found_there_during_the_call() -> None:
    path = analyse("per_cpu_save")
    state = path.state_at(dispatcher_of("per_cpu_save").return_address)
    assert state is not None
    saved = {name: state.registers[name] for name in ("rip", "rflags", "rsp", "rbx", "rbp")}
    assert saved == {
        name: InGsSlot(slot) for name, slot in zip(saved, (0x28, 0x30, 0x20, 0x38, 0x40), strict=True)
    }


def test_a_stack_from_a_tss_is_followed_through_its_pointer() -> None:
    path = analyse("tss_rsp0")
    assert path.stack is not None
    assert (str(path.stack.top), path.stack.gs_slot) == ("[gs:[0x50]+0x4]", None)


def test_stores_make_a_frame_like_pushes() -> None:
    path = analyse("stores")
    assert slots_of(path) == {
        0x58: "rip", 0x50: "rflags", 0x48: "rbp", 0x40: "rbx", 0x38: "r12", 0x30: "rsp", 0: "rax",
    }  # fmt: skip
    assert {slot.how for slot in path.frame.slots} == {"mov"}
    assert dispatcher_of("stores").number == InFrame("rdi", 0)


def test_a_frame_that_is_only_partly_overwritten_is_not_taken_for_whole() -> None:
    path = analyse("overlap")
    assert slots_of(path)[0] is None
    assert slots_of(path)[8] is None
    assert slots_of(path)[16] == "rip"
    assert slots_of(analyse("fpu_area"))[0x200] == "rax"


def test_page_tables_are_told_with_their_context_numbers() -> None:
    assert [switch.source for switch in analyse("pcid").cr3_switches] == [
        "and(bts(user cr3, 0x3f), 0xffffffffffffe7ff)",
        "bts(or(gs:[0x20], 0x1000), 0x3f)",
    ]


def test_a_table_in_the_stub_is_no_function_and_that_is_said() -> None:
    path = analyse("table")
    dispatcher = dispatcher_of("table")
    assert (dispatcher.address, dispatcher.number) == (None, InRegister("rax"))
    assert slots_of(path)[0] == "rax"
    (doubt,) = path.doubts
    assert "through `qword ptr [rax*8" in doubt


def test_the_dispatcher_is_the_call_that_is_given_the_number() -> None:
    path = analyse("hooks")
    dispatcher = dispatcher_of("hooks")
    assert dispatcher.address == assemble_stub("hooks").labels["dispatcher"]
    registers = [InRegister(name) for name in ("rsi", "rdx", "rcx", "r8", "r9")]
    assert (dispatcher.number, dispatcher.arguments) == (InRegister("rdi"), (*registers, OnStack(0x18)))
    (doubt,) = path.doubts
    assert "another call on the way in" in doubt


@pytest.mark.parametrize("name", PUSHED)
def test_a_call_without_the_instruction_is_one(name: str) -> None:
    path, labels = analyse(name), assemble_stub(name).labels
    dispatcher = dispatcher_of(name)
    assert (dispatcher.address, dispatcher.return_address) == (labels["dispatcher"], labels["back"])
    assert (dispatcher.rsp_below_top, dispatcher.is_aligned) == (0x20, True)
    assert slots_of(path) == {0: "rax", 8: "rbp", 0x10: "rflags", 0x18: "rip"}
    assert path.frame.scratch == ()
    assert dispatcher.number == (InRegister("rsi") if name == "push_jump" else InFrame("rdi", 0))


def test_a_second_dispatcher_is_said() -> None:
    path = analyse("two_dispatchers")
    (doubt,) = path.doubts
    assert f"{assemble_stub('two_dispatchers').labels['dispatcher2']:#x}" in doubt
    (slot,) = (slot for slot in path.frame.slots if slot.holds == "rax")
    assert slot.how == "push"


def test_a_gs_base_that_is_written_is_not_known_behind_it() -> None:
    path = analyse("wrgsbase")
    assert [way.gs for way in path.exits] == [Gs.UNKNOWN]
    (doubt,) = path.doubts
    assert "the GS base is set at" in doubt


def test_ways_with_different_gs_bases_leave_nothing_to_rely_on() -> None:
    path = analyse("conditional_swapgs")
    assert path.stack is None
    assert path.frame.slots == ()
    assert dispatcher_of("conditional_swapgs").is_aligned is None
    assert any("rsp is not known" in doubt for doubt in path.doubts)
    assert any("whose GS base is active" in doubt for doubt in path.doubts)
