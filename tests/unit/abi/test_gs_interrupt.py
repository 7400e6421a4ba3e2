"""Handlers of known shape: where the user's GS base is right inside them."""

import pytest

from exogdb.abi.gs import GsState, diagnose_gs, find_gs_path
from exogdb.abi.gs_interrupt import InterruptWindows, find_interrupt_windows
from exogdb.abi.stub.disassembly import Disassembler
from exogdb.errors import MemoryFault

HANDLER = 0xFFFFFFFF80002000
KERNEL_BASE, USER_BASE = 0xFFFFFFFF80020000, 0x7F0000001000
SWAPGS, NOP, IRETQ, RET, JZ_OVER_3 = "0f01f8", "90", "48cf", "c3", "7403"


class Code:
    """Bytes at HANDLER and nothing else."""

    def __init__(self, *parts: str) -> None:
        self.bytes = bytes.fromhex("".join(parts))

    def read(self, address: int, size: int) -> bytes:
        at = address - HANDLER
        if not 0 <= at < len(self.bytes):
            raise MemoryFault(address, size)
        return self.bytes[at : at + size].ljust(size, b"\xcc")


def looks_like_kernel(base: int) -> bool | None:
    return base >> 63 == 1 or None


def windows_of(*parts: str) -> tuple[set[int], set[int]]:
    windows = find_interrupt_windows(Disassembler(Code(*parts)), [HANDLER])
    return {at - HANDLER for at in windows.entry}, {at - HANDLER for at in windows.exit}


# push 0; jz over swapgs; swapgs; call the kernel; jz over swapgs; swapgs; pop; iretq
USUAL = ("6a00", JZ_OVER_3, SWAPGS, "e8f4010000", JZ_OVER_3, SWAPGS, "58", IRETQ)


def test_a_handler_that_swaps_when_it_came_from_ring_3() -> None:
    entry, exit_ = windows_of(*USUAL)
    assert entry == {0, 2, 4}
    assert exit_ == {17, 18}


def test_a_handler_that_never_swaps_has_no_windows() -> None:
    assert windows_of("6a00", "e8f4010000", "58", IRETQ) == (set(), set())


def test_a_function_that_only_swaps_belongs_to_the_entry() -> None:
    # call the function behind; call the kernel; iretq; function: jz over swapgs; swapgs; ret
    entry, exit_ = windows_of("e807000000", "e8f4010000", IRETQ, JZ_OVER_3, SWAPGS, RET)
    assert entry == {0, 12, 14}
    assert exit_ == set()


def test_code_that_cannot_be_read_ends_a_way() -> None:
    assert windows_of("e9ff010000") == (set(), set())
    windows = find_interrupt_windows(Disassembler(Code("")), [HANDLER])
    assert windows.entry | windows.exit == set()


@pytest.mark.parametrize(
    ("offset", "state"),
    [
        (0, GsState.ENTRY_WINDOW),
        (4, GsState.ENTRY_WINDOW),
        (7, GsState.MISSING),
        (12, GsState.MISSING),
        (17, GsState.EXIT_WINDOW),
        (0x500, GsState.MISSING),
    ],
)
def test_the_users_base_inside_a_handler(offset: int, state: GsState) -> None:
    windows = find_interrupt_windows(Disassembler(Code(*USUAL)), [HANDLER])
    stub = find_gs_path(Disassembler(Code(SWAPGS, NOP, "e8f4010000", SWAPGS, "480f07")), HANDLER)

    def diagnose(active: int, waiting: int) -> GsState:
        # The stub lies elsewhere; only what it does matters.
        return diagnose_gs(0, HANDLER + 0x100 + offset, active, waiting, stub, looks_like_kernel, moved).state

    def moved() -> InterruptWindows:
        return InterruptWindows(
            *(frozenset(at + 0x100 for at in part) for part in (windows.entry, windows.exit, windows.unswapped))
        )

    assert diagnose(USER_BASE, KERNEL_BASE) is state
    assert diagnose(KERNEL_BASE, USER_BASE) is GsState.KERNEL


def test_a_way_out_that_system_calls_share_with_interrupts_of_the_kernel() -> None:
    """Linux has one IRETQ for all: with the kernel's base there it returns to the kernel, else to ring 3."""
    # gate: nop; jmp to iretq. entry: swapgs; call; swapgs; iretq
    code = Code("90", "eb0b", SWAPGS, "e8f4010000", SWAPGS, IRETQ)
    path = find_gs_path(Disassembler(code), HANDLER + 3)
    windows = find_interrupt_windows(Disassembler(code), [HANDLER])
    at_iretq = HANDLER + 14

    def diagnose(active: int, waiting: int) -> GsState:
        return diagnose_gs(0, at_iretq, active, waiting, path, looks_like_kernel, lambda: windows).state

    assert diagnose(USER_BASE, KERNEL_BASE) is GsState.EXIT_WINDOW
    assert diagnose(KERNEL_BASE, USER_BASE) is GsState.KERNEL


def test_two_kernel_addresses_in_a_window_are_unknown() -> None:
    windows = find_interrupt_windows(Disassembler(Code(*USUAL)), [HANDLER])
    stub = find_gs_path(Disassembler(Code(SWAPGS)), HANDLER)
    report = diagnose_gs(0, HANDLER + 4, KERNEL_BASE, KERNEL_BASE, stub, lambda _: True, lambda: windows)
    assert (report.state, report.active, report.kernel) == (GsState.UNKNOWN, "unknown", None)
