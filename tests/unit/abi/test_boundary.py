"""exogdb/abi/boundary.py: the symbol file is what binutils take for one."""

import subprocess
from pathlib import Path

from exogdb.abi.boundary import BOUNDARY_NAME, BOUNDARY_PC, make_boundary_object
from exogdb.x86.address import is_canonical


def test_the_symbol_covers_the_address_and_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "boundary"
    file.write_bytes(make_boundary_object())
    listing = subprocess.run(["nm", "-S", file], check=True, capture_output=True, text=True, timeout=20).stdout
    start, size, kind, name = listing.split()
    assert (kind, name) == ("T", "__morestack")
    assert int(start, 16) < BOUNDARY_PC - 1 < BOUNDARY_PC < int(start, 16) + int(size, 16)


def test_debug_info_has_the_name_that_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "boundary"
    file.write_bytes(make_boundary_object())
    command = ["readelf", "--debug-dump=info", str(file)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
    assert BOUNDARY_NAME in listing


def test_no_code_can_be_at_the_boundary() -> None:
    assert not is_canonical(BOUNDARY_PC)
