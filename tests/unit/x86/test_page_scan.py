"""exogdb/x86/page_scan.py on page tables made by hand."""

import pytest

from exogdb.errors import UnavailableError
from exogdb.x86.page_scan import MappedPage, scan_upper_half

P, W, U, LARGE, XD = 1, 2, 4, 0x80, 1 << 63
NXE, LA57 = 1 << 11, 1 << 12


class Tables:
    """Page tables in physical memory: {table: {index: entry}}."""

    def __init__(self, tables: dict[int, dict[int, int]]) -> None:
        self.tables = tables
        self.reads = 0

    def read(self, address: int, size: int) -> bytes:
        self.reads += 1
        entries = self.tables[address]
        return b"".join(entries.get(index, 0).to_bytes(8, "little") for index in range(size // 8))


FOUR_LEVELS = {
    0x1000: {0: 0x9000 | P | W | U, 256: 0x2000 | P | W | U, 511: 0x2000 | P | W},
    0x2000: {0: 0x3000 | P | W | U, 2: 0x4000_0000 | P | W | LARGE | XD},
    0x3000: {1: 0x4000 | P | U, 5: 0x60_0000 | P | W | U | LARGE | 1 << 12},
    0x4000: {7: 0x7000 | P | W | U | XD, 8: 0x8000},
}


def test_rights_are_those_of_all_levels_and_the_lower_half_is_left_out() -> None:
    pages = list(scan_upper_half(Tables(FOUR_LEVELS), 0x1FFF, 0, NXE))  # the low bits of CR3 are no address
    first = 0xFFFF_8000_0000_0000
    last = 0xFFFF_FF80_0000_0000
    small, large, huge = 0x20_7000, 0xA0_0000, 0x8000_0000
    assert pages == [
        MappedPage(first + small, 1 << 12, 0x7000, writable=False, user=True, nx=True),
        MappedPage(first + large, 1 << 21, 0x60_0000, writable=True, user=True, nx=False),
        MappedPage(first + huge, 1 << 30, 0x4000_0000, writable=True, user=False, nx=True),
        MappedPage(last + small, 1 << 12, 0x7000, writable=False, user=False, nx=True),
        MappedPage(last + large, 1 << 21, 0x60_0000, writable=True, user=False, nx=False),
        MappedPage(last + huge, 1 << 30, 0x4000_0000, writable=True, user=False, nx=True),
    ]


def test_without_nxe_every_page_is_executable() -> None:
    assert not any(page.nx for page in scan_upper_half(Tables(FOUR_LEVELS), 0x1000, 0, 0))


def test_a_fifth_level_is_followed() -> None:
    pages = list(
        scan_upper_half(Tables({0x5000: {511: 0x1000 | P | W}, **FOUR_LEVELS, 0x9000: {}}), 0x5000, LA57, NXE)
    )
    assert pages[0].address == 0xFFFF_8000_0020_7000
    assert len(pages) == 6


def test_a_table_that_maps_itself_ends_the_scan() -> None:
    # Sixteen times: more than 4,096 tables on four levels, and not millions of pages before that.
    tables = Tables({0x1000: dict.fromkeys(range(496, 512), 0x1000 | P)})
    with pytest.raises(UnavailableError, match="more than 4096 page tables"):
        list(scan_upper_half(tables, 0x1000, 0, NXE))
    assert tables.reads == 4096
