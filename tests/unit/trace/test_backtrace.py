"""exogdb/trace/backtrace.py: chains of frame pointers, good and bad."""

from exogdb.errors import MemoryFault
from exogdb.trace.backtrace import SymbolNames, demangle, walk_frames

_CODE, _STACK = 0x400000, 0x7000


class _Memory:
    """Words on a stack and code that is all `call` instructions."""

    def __init__(self, words: dict[int, int]) -> None:
        self._words = words

    def read(self, address: int, size: int) -> bytes:
        """Code is `e8 00 00 00 00` over and over, so that an address is good if it is a multiple of five."""
        if _CODE <= address < _CODE + 0x1000:
            return bytes(0xE8 if at % 5 == 0 else 0 for at in range(address - _CODE, address - _CODE + size))
        if any(at not in self._words for at in range(address, address + size, 8)):
            raise MemoryFault(address, size)
        return b"".join(self._words[at].to_bytes(8, "little") for at in range(address, address + size, 8))


def _walk(words: dict[int, int]) -> list[int]:
    return walk_frames(_Memory(words), _STACK, _STACK, lambda at: _CODE <= at < _CODE + 0x1000)


def test_a_chain_is_followed_to_its_end() -> None:
    words = {_STACK: _STACK + 0x40, _STACK + 8: _CODE + 10, _STACK + 0x40: 0, _STACK + 0x48: _CODE + 25}
    assert _walk(words) == [_CODE + 10, _CODE + 25]


def test_an_address_that_no_call_leads_to_ends_it() -> None:
    words = {_STACK: _STACK + 0x40, _STACK + 8: _CODE + 10, _STACK + 0x40: 0, _STACK + 0x48: _CODE + 26}
    assert _walk(words) == [_CODE + 10]


def test_a_chain_that_leads_down_the_stack_ends() -> None:
    words = {_STACK: _STACK, _STACK + 8: _CODE + 10}
    assert _walk(words) == [_CODE + 10]


def test_memory_that_is_not_there_ends_it() -> None:
    assert _walk({}) == []


def test_a_name_that_is_not_of_that_kind_stays() -> None:
    assert demangle("_RNvNtCs_4core9panicking") == "_RNvNtCs_4core9panicking"
    assert demangle("_ZN3exo99x") == "_ZN3exo99x"


def test_below_the_first_symbol_there_is_no_name() -> None:
    assert SymbolNames({"main": 0x1000}).describe(0xFFF) == ""
