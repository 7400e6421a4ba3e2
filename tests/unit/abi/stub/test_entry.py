"""exogdb/abi/stub/entry.py: what the analysis says of entry stubs, against their sources."""

import pytest

from exogdb.abi.stub.entry import find_entry_path
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.abi.stub.location import InFrame, InRegister, OnStack
from exogdb.abi.stub.stub_state import InGsSlot
from exogdb.abi.stub.symbolic import Gs
from exogdb.errors import AnalysisError
from tests.unit.abi.stub_fixture import StubMemory, assemble_stub

SEED_FRAME = ["r15", "r14", "r13", "r12", "rbx", "rbp", "rflags", "rip"]
TODAY_FRAME = ["rax", "r9", "r8", "r10", "rdx", "rdi", "rsi", "rsp", *SEED_FRAME]


def analyse(name: str) -> EntryPath:
    stub = assemble_stub(name)
    return find_entry_path(stub.memory, stub.labels["syscall_entry"])


def test_the_seed_saves_eight_registers_and_keeps_rsp_in_the_per_cpu_block() -> None:
    path = analyse("seed")
    assert [slot.name for slot in path.frame.slots] == SEED_FRAME
    assert [slot.offset for slot in path.frame.slots] == list(range(0, 64, 8))
    assert {slot.how for slot in path.frame.slots} == {"push"}
    assert (path.user_rsp_slot, path.kernel_rsp_slot) == (8, 0)
    assert path.doubts == ()
    assert path.user_stack_uses == ()


def test_the_seed_as_printed_leaves_the_number_in_rax() -> None:
    dispatcher = analyse("seed").dispatcher
    assert dispatcher is not None
    assert dispatcher.address == assemble_stub("seed").labels["dispatcher"]
    assert dispatcher.number == InRegister("rax")
    assert dispatcher.arguments == tuple(map(InRegister, ("rdi", "rsi", "rdx", "rcx", "r8", "r9")))
    assert dispatcher.is_aligned


def test_shifted_arguments_are_found_with_the_last_one_on_the_stack() -> None:
    path = analyse("shifted")
    dispatcher = path.dispatcher
    assert dispatcher is not None
    assert dispatcher.number == InRegister("rdi")
    registers = [InRegister(name) for name in ("rsi", "rdx", "rcx", "r8", "r9")]
    assert dispatcher.arguments == (*registers, OnStack(8))
    assert [slot.name for slot in path.frame.slots] == SEED_FRAME
    assert (path.frame.size, path.frame.base_below_top) == (64, 64)
    assert [slot.offset for slot in path.frame.scratch] == [-16]
    assert dispatcher.rsp_below_top == 80
    assert dispatcher.is_aligned


def test_today_hands_over_a_pointer_to_a_frame_of_sixteen_registers() -> None:
    path = analyse("today")
    dispatcher = path.dispatcher
    assert dispatcher is not None
    assert [slot.name for slot in path.frame.slots] == TODAY_FRAME
    assert dispatcher.frame_pointer is not None
    assert dispatcher.number == InFrame("rdi", 0)
    assert dispatcher.arguments == tuple(InFrame("rdi", offset) for offset in (40, 48, 32, 24, 16, 8))
    assert dispatcher.realigned
    assert dispatcher.is_aligned
    assert path.doubts == ()


def test_today_switches_page_tables_both_ways_and_leaves_by_sysret_or_iret() -> None:
    path = analyse("today")
    assert [(switch.source, switch.on_exit) for switch in path.cr3_switches] == [
        ("gs:[0x40]", False),
        ("gs:[0x48]", True),
    ]
    assert [(way.kind, way.gs) for way in path.exits] == [("sysret", Gs.USER), ("iret", Gs.USER)]
    for way in path.exits:
        rip, rsp = way.registers["rip"], way.registers["rsp"]
        assert (rip.kind, rip.frame_offset) == ("restored", 120)
        assert (rsp.kind, rsp.frame_offset) == ("restored", 56)


@pytest.mark.parametrize("name", ["seed", "shifted", "today"])
def test_every_swapgs_is_found_and_every_exit_has_the_users_gs(name: str) -> None:
    path = analyse(name)
    assert [swap.before for swap in path.swapgs if not swap.on_exit] == [Gs.USER]
    assert {swap.before for swap in path.swapgs if swap.on_exit} == {Gs.KERNEL}
    assert {way.gs for way in path.exits} == {Gs.USER}
    assert all(access.active is Gs.KERNEL for access in path.gs_accesses)


def test_the_seed_leaks_what_the_dispatcher_left_in_caller_saved_registers() -> None:
    (way,) = analyse("seed").exits
    leaked = sorted(name for name, how in way.registers.items() if how.kind == "leaked")
    assert leaked == ["r10", "r8", "r9", "rdi", "rdx", "rsi"]
    assert way.registers["rax"].kind == "result"
    assert way.registers["rsp"].gs_slot == 8


def test_the_state_follows_rip_from_rcx_to_the_frame_and_back() -> None:
    path = analyse("seed")
    dispatcher = path.dispatcher
    assert dispatcher is not None
    first = path.state_at(path.entry)
    called = path.state_at(dispatcher.call_address)
    returned = path.state_at(dispatcher.return_address)
    last = path.state_at(path.exits[0].address)
    assert first is not None
    assert called is not None
    assert returned is not None
    assert last is not None
    assert (first.registers["rip"], first.gs, first.stack) == (InRegister("rcx"), Gs.USER, "user")
    assert (called.registers["rip"], called.gs, called.depth) == (InFrame("rsp", 56), Gs.KERNEL, 64)
    assert (returned.registers["rip"], returned.registers["rsp"]) == (InFrame("rsp", 56), InGsSlot(8))
    assert (last.registers["rip"], last.gs, last.stack) == (InRegister("rcx"), Gs.USER, "user")


def test_no_code_is_a_sentence_not_a_guess() -> None:
    with pytest.raises(AnalysisError, match="no code can be read at LSTAR's target 0x1000"):
        find_entry_path(StubMemory(0x2000, b""), 0x1000)


def test_a_trampoline_stack_and_two_exits_are_followed() -> None:
    stub = assemble_stub("trampoline")
    path = analyse("trampoline")
    assert (path.user_rsp_slot, path.kernel_rsp_slot, path.frame.size) == (0x6014, 0x1FB50, 168)
    assert path.doubts == ()
    assert {way.kind: way.gs for way in path.exits} == {"sysret": Gs.USER, "iret": Gs.USER}
    assert [switch.on_exit for switch in path.cr3_switches] == [False, True]
    rip, ax = path.frame.find_slot("rip"), path.frame.find_restored("rax")
    assert rip is not None
    assert ax is not None
    assert (rip.offset, ax.offset, ax.holds) == (0x80, 0x50, None)
    at_sysret = path.state_at(stub.labels["by_sysret"])
    at_iret = path.state_at(stub.labels["at_iret"])
    assert at_sysret is not None
    assert at_iret is not None
    assert (at_sysret.registers["rip"], at_sysret.stack) == (InRegister("rcx"), "user")
    assert (at_iret.registers["rip"], at_iret.registers["rsp"]) == (InFrame("rsp", 0), InFrame("rsp", 24))


def test_a_straight_line_function_on_the_way_is_not_the_dispatcher() -> None:
    dispatcher = analyse("trampoline").dispatcher
    assert dispatcher is not None
    assert dispatcher.address == assemble_stub("trampoline").labels["dispatcher"]
    assert dispatcher.number == InRegister("rsi")
    assert dispatcher.arguments == tuple(InFrame("rdi", offset) for offset in (0x70, 0x68, 0x60, 0x38, 0x48, 0x40))


def test_flaws_are_facts_in_the_result() -> None:
    path = analyse("flawed")
    assert path.user_stack_uses == (path.entry, path.entry + 4)
    assert [(way.gs, way.after_dispatch) for way in path.exits] == [(Gs.KERNEL, False), (Gs.USER, True)]
    assert any("jumps to an address that the code does not tell" in doubt for doubt in path.doubts)


def test_a_branch_is_kept_with_what_it_compares() -> None:
    path = analyse("trampoline")
    compared = [tuple(map(str, each.compared or ())) for each in path.comparisons]
    assert ("[gs:[0x1fb50]-0x28]", "sar(shl([gs:[0x1fb50]-0x50], 0x10), 0x10)") in compared
