"""The per-CPU block without debug info: the slots that an entry stub uses."""

from exogdb.abi.percpu import read_by_offsets
from exogdb.abi.stub.entry_path import GsAccess
from exogdb.abi.stub.symbolic import Gs
from exogdb.errors import MemoryFault
from exogdb.reading import Reading, Unavailable

BASE = 0xFFFFFFFF80152440


class Slots:
    """Sixteen bytes at BASE."""

    def read(self, address: int, size: int) -> bytes:
        if not BASE <= address <= BASE + 8:
            raise MemoryFault(address, size)
        return (address - BASE + 1).to_bytes(size, "little")


def test_slots_of_the_kernels_base_in_order_each_once() -> None:
    accesses = [
        GsAccess(0x1003, 8, True, Gs.KERNEL),
        GsAccess(0x100C, 0, False, Gs.KERNEL),
        GsAccess(0x1100, 8, False, Gs.KERNEL),
        GsAccess(0x0FF0, 0x28, False, Gs.USER),
        GsAccess(0x1110, 0x5000, False, Gs.KERNEL),
    ]
    block = read_by_offsets(Slots(), BASE, accesses)
    assert [field.name for field in block.fields] == ["gs:0x0", "gs:0x8", "gs:0x5000"]
    assert block.fields[1].value == Reading(9, "memory")
    assert isinstance(block.fields[2].value, Unavailable)
