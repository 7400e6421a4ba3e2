"""The GS oracle on entry paths of known shape."""

import pytest

from exogdb.abi.gs import GsReport, GsState, diagnose_gs, find_gs_path
from exogdb.abi.stub.disassembly import Disassembler
from exogdb.abi.stub.entry import find_entry_path
from exogdb.errors import AnalysisError, MemoryFault
from tests.unit.abi.stub_fixture import assemble_stub

ENTRY = 0xFFFFFFFF80001000
KERNEL_BASE, USER_BASE = 0xFFFFFFFF80020000, 0x7F0000001000
SWAPGS, NOP, SYSRETQ, IRETQ = "0f01f8", "90", "480f07", "48cf"
CALL = "e800010000"


class Code:
    """Bytes at ENTRY and nothing else."""

    def __init__(self, *parts: str) -> None:
        self.bytes = bytes.fromhex("".join(parts))

    def read(self, address: int, size: int) -> bytes:
        at = address - ENTRY
        if not 0 <= at < len(self.bytes):
            raise MemoryFault(address, size)
        return self.bytes[at : at + size].ljust(size, b"\xcc")


def looks_like_kernel(base: int) -> bool | None:
    return True if base >> 63 else None


def diagnose(
    code: Code | None, offset: int, active: int, waiting: int, cpl: int = 0, rip: int | None = None
) -> GsReport:
    path = None if code is None else find_gs_path(Disassembler(code), ENTRY)
    return diagnose_gs(cpl, ENTRY + offset if rip is None else rip, active, waiting, path, looks_like_kernel)


GOOD = Code(SWAPGS, NOP, CALL, NOP, SWAPGS, SYSRETQ)
AT_SWAPGS, AFTER_SWAPGS, AFTER_CALL, SECOND_SWAPGS, AT_SYSRET = 0, 3, 9, 10, 13


@pytest.mark.parametrize(
    ("offset", "active", "waiting", "state"),
    [
        (AT_SWAPGS, USER_BASE, KERNEL_BASE, GsState.ENTRY_WINDOW),
        (AFTER_SWAPGS, KERNEL_BASE, USER_BASE, GsState.KERNEL),
        (AFTER_CALL, KERNEL_BASE, USER_BASE, GsState.KERNEL),
        (SECOND_SWAPGS, KERNEL_BASE, USER_BASE, GsState.KERNEL),
        (AT_SYSRET, USER_BASE, KERNEL_BASE, GsState.EXIT_WINDOW),
    ],
)
def test_along_the_path(offset: int, active: int, waiting: int, state: GsState) -> None:
    report = diagnose(GOOD, offset, active, waiting)
    assert report.state is state
    assert (report.kernel, report.user) == (KERNEL_BASE, USER_BASE)
    assert report.active == ("kernel" if active == KERNEL_BASE else "user")
    assert not report.is_wrong


def test_a_user_base_of_zero_is_the_users() -> None:
    report = diagnose(GOOD, AT_SWAPGS, 0, KERNEL_BASE)
    assert (report.state, report.user) == (GsState.ENTRY_WINDOW, 0)


def test_ring_3() -> None:
    report = diagnose(GOOD, 0, USER_BASE, KERNEL_BASE, cpl=3, rip=0x401000)
    assert (report.state, report.kernel) == (GsState.USER, KERNEL_BASE)


def test_kernel_code_elsewhere() -> None:
    assert diagnose(GOOD, 0x5000, KERNEL_BASE, USER_BASE).state is GsState.KERNEL


def test_an_interrupt_handler_that_forgot_swapgs() -> None:
    report = diagnose(GOOD, 0x5000, USER_BASE, KERNEL_BASE)
    assert report.state is GsState.MISSING
    assert report.is_wrong
    assert "entered without swapgs" in report.why
    assert (report.kernel, report.user) == (KERNEL_BASE, USER_BASE)


def test_a_stub_that_never_swaps() -> None:
    stub = Code(NOP, CALL, SYSRETQ)
    report = diagnose(stub, 0x5000, USER_BASE, KERNEL_BASE)
    assert report.state is GsState.MISSING
    assert "the entry code calls the kernel without swapgs" in report.why
    behind_the_call = diagnose(stub, 6, USER_BASE, KERNEL_BASE)
    assert behind_the_call.state is GsState.MISSING
    assert diagnose(stub, 0, USER_BASE, KERNEL_BASE).state is GsState.ENTRY_WINDOW


def test_a_stub_that_swaps_twice() -> None:
    stub = Code(SWAPGS, SWAPGS, NOP, CALL, SWAPGS, SWAPGS, SYSRETQ)
    at_nop = diagnose(stub, 6, USER_BASE, KERNEL_BASE)
    assert at_nop.state is GsState.DOUBLE_SWAPPED
    assert (at_nop.kernel, at_nop.user) == (KERNEL_BASE, USER_BASE)
    inside_the_call = diagnose(stub, 0x5000, USER_BASE, KERNEL_BASE)
    assert inside_the_call.state is GsState.DOUBLE_SWAPPED


def test_after_one_swapgs_with_the_users_base_active() -> None:
    """SYSCALL came while the kernel's base was active already; the swapgs took it away."""
    report = diagnose(GOOD, AFTER_SWAPGS, USER_BASE, KERNEL_BASE)
    assert report.state is GsState.DOUBLE_SWAPPED


def test_the_way_out_that_forgot_swapgs() -> None:
    assert diagnose(GOOD, 0, KERNEL_BASE, USER_BASE, cpl=3, rip=0x401000).state is GsState.MISSING
    assert diagnose(GOOD, AT_SWAPGS, KERNEL_BASE, USER_BASE).state is GsState.MISSING
    assert diagnose(GOOD, AT_SYSRET, KERNEL_BASE, USER_BASE).state is GsState.DOUBLE_SWAPPED


def test_two_kernel_addresses_are_told_apart_by_position_only() -> None:
    other = KERNEL_BASE + 0x1000
    report = diagnose(GOOD, AT_SWAPGS, other, KERNEL_BASE)
    assert (report.state, report.active, report.kernel) == (GsState.ENTRY_WINDOW, "user", KERNEL_BASE)
    assert "do not tell by themselves" in report.why


def test_without_a_path_position_is_not_used() -> None:
    report = diagnose(None, 0, KERNEL_BASE, USER_BASE)
    assert (report.state, report.active) == (GsState.KERNEL, "kernel")
    assert "not known" in report.why


def test_without_a_path_an_active_user_base_may_be_right() -> None:
    """The CPU may stand on the first instruction of an entry that nobody could read."""
    report = diagnose(None, 0, USER_BASE, KERNEL_BASE)
    assert (report.state, report.active, report.expected) == (GsState.UNKNOWN, "user", "unknown")
    assert (report.kernel, report.user) == (KERNEL_BASE, USER_BASE)


def test_conditional_paths_are_both_followed() -> None:
    jne_to_iret = "7506"  # over swapgs + sysretq
    code = Code(SWAPGS, CALL, jne_to_iret, SWAPGS, SYSRETQ, SWAPGS, IRETQ)
    assert diagnose(code, 13, USER_BASE, KERNEL_BASE).state is GsState.EXIT_WINDOW
    assert diagnose(code, 16, KERNEL_BASE, USER_BASE).state is GsState.KERNEL
    assert diagnose(code, 19, USER_BASE, KERNEL_BASE).state is GsState.EXIT_WINDOW


def test_where_paths_with_other_counts_meet_nothing_is_claimed() -> None:
    je_over_swapgs = "7403"
    code = Code(je_over_swapgs, SWAPGS, NOP, CALL, SYSRETQ)
    report = diagnose(code, 5, 0x1000, 0x2000)
    assert report.state is GsState.UNKNOWN
    assert (report.active, report.kernel) == ("unknown", None)
    by_address = diagnose(code, 5, KERNEL_BASE, USER_BASE)
    assert (by_address.active, by_address.kernel) == ("kernel", KERNEL_BASE)


def test_a_loop_of_swapgs_ends() -> None:
    jmp_back = "ebfb"
    path = find_gs_path(Disassembler(Code(SWAPGS, jmp_back)), ENTRY)
    assert len(path.swaps[ENTRY]) > 1


def test_an_unreadable_entry_is_an_analysis_error() -> None:
    with pytest.raises(AnalysisError, match="cannot be read"):
        find_gs_path(Disassembler(Code("")), ENTRY)


def test_nothing_is_claimed_where_neither_the_code_nor_the_bases_tell() -> None:
    """A CPU at reset: both bases 0, LSTAR 0."""
    report = diagnose_gs(0, 0xFFF0, 0, 0, None, lambda _base: None)
    assert (report.state, report.active, report.kernel, report.user) == (GsState.UNKNOWN, "unknown", None, None)


def test_a_dispatcher_that_is_jumped_to_is_stepped_over() -> None:
    stub = assemble_stub("push_jump")
    code, entry = Disassembler(stub.memory), stub.labels["syscall_entry"]
    dispatcher = find_entry_path(stub.memory, entry).dispatcher
    assert dispatcher is not None
    swaps = find_gs_path(code, entry, {dispatcher.call_address: dispatcher.return_address}).swaps
    assert swaps[stub.labels["back"]] == {1}
    assert max(swaps) < stub.labels["dispatcher"]
    assert {2} in swaps.values()  # at SYSRET, behind the last swapgs
    assert stub.labels["back"] not in find_gs_path(code, entry).swaps
