"""Code that keeps its parameters in memory is told by its first instructions."""

import pytest

from exogdb.abi.dispatch.prologue import find_unchanged, is_near_end, keeps_parameters_in_memory
from exogdb.errors import MemoryFault

PAGE = 0x1000
START = PAGE + 0x10  # as functions are aligned
UNOPTIMISED = bytes.fromhex("4883ec28 48897c2410 4889742418 488b442410")  # sub; mov [rsp+16], rdi; [rsp+24], rsi
WITH_FRAME_POINTER = bytes.fromhex("55 4889e5 897dfc 8975f8")  # push; mov rbp, rsp; mov [rbp-4], edi; [rbp-8], esi
OPTIMISED = bytes.fromhex("4157 4883ec10 4889742408 4989ff")  # push r15; sub; mov [rsp+8], rsi; mov r15, rdi


class Code:
    """`code` at `start`, and zeros to the end of its page."""

    def __init__(self, code: bytes, start: int = START) -> None:
        self._start = start
        self._code = code + bytes(-(start + len(code)) % PAGE)

    def read(self, address: int, size: int) -> bytes:
        found = self._code[address - self._start :][:size] if address >= self._start else b""
        if len(found) < size:
            raise MemoryFault(address, size, "no code")
        return found


@pytest.mark.parametrize(
    ("code", "count", "is_kept"),
    [
        (UNOPTIMISED, 2, True),
        (UNOPTIMISED, 3, False),
        (WITH_FRAME_POINTER, 2, True),
        (OPTIMISED, 2, False),
        (OPTIMISED, 0, False),
        (b"\x06", 1, False),  # no instruction in 64-bit mode
        (b"", 1, False),
    ],
)
def test_all_parameters_are_stored_or_it_was_optimised(code: bytes, count: int, *, is_kept: bool) -> None:
    assert keeps_parameters_in_memory(Code(code), range(START, START + len(code)), count) is is_kept


def test_no_further_than_the_prologue() -> None:
    assert not keeps_parameters_in_memory(Code(UNOPTIMISED), range(START, START + 9), 2)


# The same, then: xor eax, eax; jz over; jmp BACK.
BRANCHES = OPTIMISED + bytes.fromhex("31c0 7402 eb")
CLEARED = START + len(OPTIMISED) + 2


def code_that_jumps(back: int) -> tuple[Code, range]:
    """`BRANCHES` with a jump to `back`."""
    end = START + len(BRANCHES) + 1
    return Code(BRANCHES + (back - end).to_bytes(1, "little", signed=True)), range(START, end)


def test_what_straight_code_has_not_touched_is_as_the_caller_left_it() -> None:
    code, function = code_that_jumps(CLEARED + 2)
    at_start, behind_moves, cleared = (find_unchanged(code, function, pc) for pc in (START, CLEARED - 2, CLEARED))
    assert {"rdi", "r15", "rsp", "rax"} <= at_start
    assert {"rdi", "rsi", "rax"} <= behind_moves
    assert not behind_moves & {"r15", "rsp"}
    assert behind_moves - cleared == {"rax"}


def test_nothing_is_said_between_instructions_or_behind_a_branch() -> None:
    code, function = code_that_jumps(CLEARED + 2)
    for pc in (START + 1, CLEARED + 2, START - 1):
        assert find_unchanged(code, function, pc) == frozenset()


def test_nothing_is_said_where_a_loop_may_come_back_to() -> None:
    code, function = code_that_jumps(CLEARED - 2)
    assert find_unchanged(code, function, CLEARED - 2) == frozenset()
    assert find_unchanged(code, function, CLEARED) == frozenset()
    assert find_unchanged(code, function, START + 2)


@pytest.mark.parametrize(
    ("code", "is_end"),
    [
        ("5b 5d c3", True),  # pop rbx; pop rbp; ret
        ("5d 89c8 eb10", True),  # pop rbp; mov eax, ecx; jmp elsewhere
        ("5b 7402 c3", False),  # pop rbx; jz
        ("e800000000 c3", False),  # call
        ("5b", True),  # and nothing that can be read
        ("90" * 40, False),
    ],
)
def test_an_epilogue_leads_straight_out(code: str, *, is_end: bool) -> None:
    at_page_end = PAGE - len(bytes.fromhex(code))
    assert is_near_end(Code(bytes.fromhex(code), at_page_end), at_page_end) is is_end
