"""exogdb/trace/points.py: the points of stubs, from their machine code."""

import pytest

from exogdb.abi.stub.entry import find_entry_path
from exogdb.errors import AnalysisError, MemoryFault
from exogdb.trace.points import CALLEE_SAVED, find_trace_points

_BASE = 0xFFFFFFFF80100000
_SWAP = "0f01f8"
_TO_KERNEL_STACK = "65488924250800 0000 65488b24250000 0000"  # mov gs:[8],rsp; mov rsp,gs:[0]
_SAVE = "51 4153"  # push rcx; push r11
_CALL = "e800100000"
_RESTORE = "415b 59 65488b24250800 0000"  # pop r11; pop rcx; mov rsp,gs:[8]
_SYSRET = "480f07"


class _Code:
    """Code at `_BASE` and a dispatcher behind it that returns at once."""

    def __init__(self, *parts: str) -> None:
        stub = bytes.fromhex("".join(parts))
        self._code = stub.ljust(0x3000, b"\xc3")

    def read(self, address: int, size: int) -> bytes:
        """The bytes, or a fault where there are none."""
        start = address - _BASE
        if start < 0 or start + size > len(self._code):
            raise MemoryFault(address, size)
        return self._code[start : start + size]


def test_the_seed_stub() -> None:
    path = find_entry_path(_Code(_SWAP, _TO_KERNEL_STACK, _SAVE, _CALL, _RESTORE, _SWAP, _SYSRET), _BASE)
    points = find_trace_points(path)
    back = _BASE + 3 + 18 + 3 + 5
    assert points.entry == _BASE
    assert points.returns == {back}
    assert points.kept == CALLEE_SAVED
    assert points.exits == {back + 12}


def test_a_stub_that_uses_rbx_before_the_call() -> None:
    path = find_entry_path(_Code(_SWAP, _TO_KERNEL_STACK, _SAVE, "4889e3", _CALL, _RESTORE, _SWAP, _SYSRET), _BASE)
    assert find_trace_points(path).kept == CALLEE_SAVED - {"rbx"}


def test_with_two_ways_back_the_last_swapgs_is_not_relied_on() -> None:
    # test rcx,rcx; js +2 (over a jump to itself)
    branch = "4885c9 7902 ebfe"
    path = find_entry_path(_Code(_SWAP, _TO_KERNEL_STACK, _SAVE, _CALL, _RESTORE, branch, _SWAP, _SYSRET), _BASE)
    points = find_trace_points(path)
    assert points.exits == frozenset()
    assert len(points.returns) == 1


def test_a_stub_without_a_dispatcher_is_refused() -> None:
    with pytest.raises(AnalysisError, match="calls no dispatcher"):
        find_trace_points(find_entry_path(_Code(_SWAP, _SWAP, _SYSRET), _BASE))
