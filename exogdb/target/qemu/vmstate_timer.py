"""The `timer` section of QEMU's device state: the guest's virtual clock.

The body is `vmstate_timers`, version 2, of QEMU's cpu-timers.c (softmmu/ in 7.2, system/ in 10.0), big-endian::

    i64 cpu_ticks_offset, 8 bytes unused, i64 cpu_clock_offset
    with -icount:  0x05 u8 len "timer/icount" u32 version=1, i64 qemu_icount_bias, i64 qemu_icount, ...

While the guest stands still `cpu_clock_offset` is the virtual clock, in nanoseconds that it has run
(`cpu_disable_ticks`). With -icount `qemu_icount` counts the instructions that have been executed. The clock then
also holds what it was warped by while nothing ran (the bias), so that it is no measure of what a call costs.
"""

import struct
from dataclasses import dataclass

from exogdb.errors import FormatError

__all__ = ["TimerState", "decode_timer"]

TIMER_VERSION = 2
_FIELDS = struct.Struct(">q8xq")
_ICOUNT = b"\x05\x0ctimer/icount" + struct.pack(">I", 1)
_COUNTS = struct.Struct(">qq")


@dataclass(frozen=True)
class TimerState:
    """`clock_ns` is the virtual clock without -icount, `instructions` is None without it."""

    clock_ns: int
    instructions: int | None = None


def decode_timer(body: bytes, version: int) -> TimerState:
    """The clock in a `timer` section.

    :raise FormatError: another version, or a body that is none of that.

    >>> decode_timer(bytes(23) + b"\\x07", 2)
    TimerState(clock_ns=7, instructions=None)
    """
    if version != TIMER_VERSION or len(body) < _FIELDS.size:
        raise FormatError(f"QEMU's timers have version {version} and {len(body)} bytes, expected version 2")
    _ticks, clock_ns = _FIELDS.unpack_from(body)
    behind = body[_FIELDS.size :]
    if not behind:
        return TimerState(clock_ns)
    if not behind.startswith(_ICOUNT) or len(behind) < len(_ICOUNT) + _COUNTS.size:
        raise FormatError("QEMU's timers hold something that is no count of instructions", _FIELDS.size)
    _bias, instructions = _COUNTS.unpack_from(behind, len(_ICOUNT))
    return TimerState(clock_ns, instructions)
