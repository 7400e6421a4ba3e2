"""Page walks over hand-made page tables."""

import pytest

from exogdb.errors import MemoryFault
from exogdb.x86.paging import PageWalk, walk_page_tables

CR0, CR4, CR4_LA57, EFER = 0x80010011, 0x20, 0x1020, 0xD01
ADDRESS = 0xFFFFFFFF80203ABC
XD = 1 << 63


class PhysicalMemory:
    """Physical memory as 8-byte words; everything below 1 MiB exists."""

    def __init__(self, words: dict[int, int]) -> None:
        self.words = words

    def read(self, address: int, size: int) -> bytes:
        if address >= 1 << 20:
            raise MemoryFault(address, size)
        return self.words.get(address, 0).to_bytes(size, "little")


def walk(words: dict[int, int], address: int = ADDRESS, cr4: int = CR4, efer: int = EFER) -> PageWalk:
    return walk_page_tables(PhysicalMemory(words), address, CR0, 0x1000, cr4, efer)


def tables(pml4e: int = 7, pdpte: int = 7, pde: int = 7, pte: int = 7) -> dict[int, int]:
    return {
        0x1000 + 8 * 511: 0x2000 | pml4e,
        0x2000 + 8 * 510: 0x3000 | pdpte,
        0x3000 + 8 * 1: 0x4000 | pde,
        0x4000 + 8 * 3: 0x7654000 | pte,
    }


def test_four_levels() -> None:
    result = walk(tables())
    assert result.physical == 0x7654ABC
    assert [entry.level for entry in result.entries] == ["PML4E", "PDPTE", "PDE", "PTE"]
    assert (result.size, result.writable, result.user, result.nx) == (4096, True, True, False)


def test_rights_are_those_of_the_strictest_level() -> None:
    assert not walk(tables(pdpte=5)).writable
    assert not walk(tables(pml4e=3)).user
    assert walk(tables(pde=7 | XD)).nx


@pytest.mark.parametrize(("level", "name"), list(enumerate(("pml4e", "pdpte", "pde", "pte"))))
def test_not_present_names_the_level(level: int, name: str) -> None:
    result = walk(tables(**{name: 6}))
    assert not result.mapped
    assert result.reason == f"{name.upper()} not present"
    assert len(result.entries) == level + 1


def test_large_pages() -> None:
    words = tables() | {0x3000 + 8: 0x40000000 | 0x87}
    assert walk(words).physical == 0x40003ABC
    assert walk(words).size == 2 << 20
    words = tables() | {0x2000 + 8 * 510: 0x80000000 | 0x87}
    assert walk(words).physical == 0x80203ABC
    assert walk(words).size == 1 << 30


def test_what_the_cpu_reserves_does_not_translate() -> None:
    assert "PS is set" in walk(tables(pml4e=0x87)).reason
    assert "reserved address bits" in walk(tables() | {0x3000 + 8: 0x4000 | 0x87}).reason
    assert "EFER.NXE is clear" in walk(tables(pte=7 | XD), efer=0x501).reason


def test_five_levels() -> None:
    address = 0xFF80_0000_0000_0123
    words = {0x1000 + 8 * (address >> 48 & 0x1FF): 0x2003, 0x2000: 0x3003, 0x3000: 0x4003, 0x4000: 0x5003}
    words[0x5000] = 0x9003
    result = walk(words, address, CR4_LA57)
    assert result.physical == 0x9123
    assert result.entries[0].level == "PML5E"


def test_no_walk_without_long_mode_or_for_non_canonical_addresses() -> None:
    assert "not canonical" in walk(tables(), 0x8000_0000_0000).reason
    assert "not in long mode" in walk(tables(), efer=0).reason
    off = walk_page_tables(PhysicalMemory({}), 0x1234, 0x11, 0, 0, 0)
    assert (off.physical, off.reason) == (0x1234, "paging is off")


def test_a_table_outside_memory_is_a_fault() -> None:
    with pytest.raises(MemoryFault):
        walk({0x1000 + 8 * 511: 0xFFFFF000 | 7})
