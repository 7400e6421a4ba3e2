"""exogdb/target/qemu/vmstate_timer.py: the guest's clock in device states that real QEMUs wrote."""

import gzip
import struct
from pathlib import Path

import pytest

from exogdb.errors import FormatError
from exogdb.target.qemu.vmstate import for_each_section
from exogdb.target.qemu.vmstate_timer import TimerState, decode_timer

STREAMS = sorted(Path(__file__).with_name("device_state").glob("*.gz"))
# What QEMU 7.2 wrote with `-icount shift=0` at a system call's entry, and after `stepi 100`.
ICOUNT = "0000000008e40caa00000000000000000000000003a2b6b7050c74696d65722f69636f756e7400000001"
COUNTS = [("000000000130bd61", 0x6411F), ("000000000130bd61", 0x64183)]


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_every_device_state_has_a_clock(path: Path) -> None:
    (timer,) = (each for each in for_each_section(gzip.decompress(path.read_bytes())) if each.name == "timer")
    state = decode_timer(timer.body, timer.version_id)
    assert state.instructions is None
    assert (state.clock_ns == 0) == path.name.removesuffix(".gz").endswith("-reset")
    assert state.clock_ns < 3_600 * 10**9


@pytest.mark.parametrize(("bias", "count"), COUNTS)
def test_instructions_are_counted_with_icount(bias: str, count: int) -> None:
    body = bytes.fromhex(ICOUNT + bias) + struct.pack(">q", count)
    assert decode_timer(body, 2) == TimerState(0x3A2B6B7, count)


@pytest.mark.parametrize(
    ("body", "version"), [(bytes(24), 1), (bytes(23), 2), (bytes(25), 2), (bytes(24) + b"\5", 2)]
)
def test_anything_else_is_refused(body: bytes, version: int) -> None:
    with pytest.raises(FormatError):
        decode_timer(body, version)
