"""exogdb/launch/image.py and logfilter.py: what a kernel file says before it runs."""

from pathlib import Path

import pytest

from exogdb.errors import FormatError, UsageError
from exogdb.launch.image import read_image
from tests.unit.launch.test_elf import BASE, elf_file


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "kernel.elf"
    path.write_bytes(elf_file())
    return path


def test_the_entry_is_found_by_its_symbol(kernel: Path) -> None:
    assert read_image(kernel).entry == BASE + 4


@pytest.mark.parametrize(("given", "address"), [("syscall_entry", BASE + 4), ("0x1234", 0x1234), ("4096", 4096)])
def test_the_user_can_name_the_entry(kernel: Path, given: str, address: int) -> None:
    assert read_image(kernel, given).entry == address


def test_an_unknown_entry_is_the_users_mistake(kernel: Path) -> None:
    with pytest.raises(UsageError, match="--entry start_here: neither a symbol"):
        read_image(kernel, "start_here")


def test_programs_beside_the_kernel_and_named_ones_bring_symbols(kernel: Path) -> None:
    programs = kernel.parent / "programs"
    programs.mkdir()
    paths = [programs / "ping.elf", programs / "pong.elf", kernel.parent / "extra.elf"]
    for path in (*paths, programs / "notes.txt"):
        path.touch()
    assert read_image(kernel, symbols=(paths[2],)).programs == tuple(paths)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"there is no file {tmp_path}/none.elf"):
        read_image(tmp_path / "none.elf")


def test_a_file_that_is_no_elf_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bzImage"
    path.write_bytes(b"MZ")
    with pytest.raises(
        FormatError, match=r"bzImage: not a little-endian ELF64 file.*; boot it with a QEMU of your own"
    ):
        read_image(path)
