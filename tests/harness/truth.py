"""`EXO_TRUTH`: what the reference kernel wrote down about each CPU, read with GDB's own commands.

The layout is that of kernel/src/truth.rs: six words (magic, version, size of a CPU's record, size of a call's
record, CPUs set up, last sequence number), then one record for each CPU.
"""

import struct
from dataclasses import dataclass

from tests.harness.gdb import Gdb

__all__ = ["CpuTruth", "read_cpu_truths"]

_HEADER = struct.Struct("<8s5Q")
_CPU = struct.Struct("<16Q")
_LAYOUT_VERSION = 1


@dataclass(frozen=True)
class CpuTruth:
    """One CPU after its set-up. `kernel_gs_base` waits while the CPU is in the kernel, as the kernel left it."""

    online: int
    cpu_id: int
    lapic_id: int
    efer: int
    star: int
    lstar: int
    cstar: int
    fmask: int
    fs_base: int
    gs_base: int
    kernel_gs_base: int
    gdt: int
    idt: int
    tss: int
    current_process: int
    last_sequence: int


def read_cpu_truths(gdb: Gdb) -> list[CpuTruth]:
    """The record of every CPU that is set up; the guest must be stopped."""
    address = gdb.address("EXO_TRUTH")
    magic, version, cpu_size, _, count, _ = _HEADER.unpack(gdb.memory(address, _HEADER.size))
    assert magic == b"EXOTRUTH", magic
    assert (version, cpu_size) == (_LAYOUT_VERSION, _CPU.size)
    data = gdb.memory(address + _HEADER.size, count * _CPU.size)
    return [CpuTruth(*_CPU.unpack_from(data, cpu * _CPU.size)) for cpu in range(count)]
