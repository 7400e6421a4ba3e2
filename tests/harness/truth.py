"""`EXO_TRUTH`: what the reference kernel wrote down about each CPU, read with GDB's own commands.

The layout is that of kernel/src/truth.rs: six words (magic, version, size of a CPU's record, size of a call's
record, CPUs set up, last sequence number), then one record for each CPU.
"""

import struct
import tempfile
from dataclasses import dataclass
from typing import Any

from tests.harness.gdb import Gdb

__all__ = [
    "IN_PROGRESS",
    "LONG",
    "NEVER_RETURNS",
    "RETURNED",
    "CallTruth",
    "CpuTruth",
    "call_truth_address",
    "read_call_truth",
    "read_call_truths",
    "read_cpu_truths",
    "read_last_sequence",
]

_HEADER = struct.Struct("<8s5Q")
_CPU = struct.Struct("<16Q")
_CALL = struct.Struct("<24Q")
_MAX_CPUS = 8
_CALLS = 256
LONG = 16_384  # calls that the variant `truth-long` remembers
IN_PROGRESS, RETURNED, NEVER_RETURNS = 1, 2, 3  # values of `CallTruth.state`
_WRITTEN = (IN_PROGRESS, RETURNED, NEVER_RETURNS)  # not: never used, or being written right now
_LAYOUT_VERSION = 2


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


@dataclass(frozen=True)
class CallTruth:
    """One system call: what the entry stub saved for it, and what became of it (`state`, then `result`)."""

    sequence: int
    state: int
    cpu: int
    process: int
    number: int
    arguments: tuple[int, ...]
    result: int
    user_rip: int
    user_rsp: int
    user_rflags: int
    rbp: int
    rbx: int
    r12: int
    r13: int
    r14: int
    r15: int
    frame: int
    kernel_rsp: int


def read_last_sequence(gdb: Gdb) -> int:
    """The number of the last call that started on any CPU; the guest must be stopped."""
    last: int = _HEADER.unpack(gdb.memory(gdb.address("EXO_TRUTH"), _HEADER.size))[5]
    return last


def call_truth_address(gdb: Gdb, ahead: int, places: int = _CALLS) -> int:
    """Where the call that is `ahead` calls later than the last one will be recorded; the guest must be stopped.

    The first word there is its sequence number, which is written once for each call.
    """
    return _place_of(gdb, read_last_sequence(gdb) + ahead, places)


def _place_of(gdb: Gdb, sequence: int, places: int) -> int:
    calls = gdb.address("EXO_TRUTH") + _HEADER.size + _MAX_CPUS * _CPU.size
    return calls + sequence % places * _CALL.size


def read_call_truth(gdb: Gdb, sequence: int, places: int = _CALLS) -> CallTruth:
    """That system call, one of the last `places`; the guest must be stopped, and not be writing the call down."""
    words = _CALL.unpack(gdb.memory(_place_of(gdb, sequence, places), _CALL.size))
    assert words[0] == sequence
    assert words[1] in _WRITTEN
    return _to_call_truth(words)


def read_call_truths(gdb: Gdb, places: int = _CALLS) -> list[CallTruth]:
    """The last system calls, oldest first, at most `places`; the guest must be stopped.

    A call that a stopped CPU is writing down right now is left out: what is there may be half of an earlier one.
    """
    address = gdb.address("EXO_TRUTH")
    header = _HEADER.unpack(gdb.memory(address, _HEADER.size))
    assert (header[1], header[3]) == (_LAYOUT_VERSION, _CALL.size)
    start = address + _HEADER.size + _MAX_CPUS * _CPU.size
    used = min(places, header[5] + 1)  # by sequence, from 1
    with tempfile.NamedTemporaryFile() as file:  # GDB's `x` takes seconds for this much
        gdb.run(f"dump binary memory {file.name} {start:#x} {start + used * _CALL.size:#x}")
        data = file.read()
    words = (_CALL.unpack_from(data, place * _CALL.size) for place in range(used))
    calls = [_to_call_truth(call) for call in words if call[1] in _WRITTEN]
    return sorted(calls, key=lambda call: call.sequence)


def _to_call_truth(words: tuple[Any, ...]) -> CallTruth:
    fields = [*words[:5], words[5:11], *words[11:23]]
    return CallTruth(*fields)
