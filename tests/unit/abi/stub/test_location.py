"""A value is read where the location says it is, and nowhere else."""

import pytest

from exogdb.abi.stub.location import InFrame, InRegister, Location, OnStack, describe_location, read_location
from exogdb.errors import MemoryFault


class Words:
    """Memory that holds one 8-byte word at each of a few addresses, and nothing anywhere else."""

    def __init__(self, words: dict[int, int]) -> None:
        self.words = words

    def read(self, address: int, size: int) -> bytes:
        if address not in self.words or size != 8:
            raise MemoryFault(address, size)
        return self.words[address].to_bytes(8, "little")


REGISTERS = {"rdi": 0xFFFF_8000_0000_2000, "rsp": 0xFFFF_8000_0000_1000, "rax": 7}
MEMORY = Words({0xFFFF_8000_0000_1008: 106, 0xFFFF_8000_0000_2070: 101})


@pytest.mark.parametrize(
    ("location", "value", "text"),
    [
        (InRegister("rax"), 7, "rax"),
        (OnStack(8), 106, "[rsp+0x8]"),
        (InFrame("rdi", 0x70), 101, "[rdi+0x70]"),
    ],
)
def test_read_location_follows_each_kind(location: Location, value: int, text: str) -> None:
    assert read_location(location, REGISTERS, MEMORY) == value
    assert describe_location(location) == text


def test_read_location_faults_where_nothing_is_mapped() -> None:
    with pytest.raises(MemoryFault, match="0xffff800000002008"):
        read_location(InFrame("rdi", 8), REGISTERS, MEMORY)
