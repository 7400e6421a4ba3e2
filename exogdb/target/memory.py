"""Guest memory: virtual addresses as one CPU sees them, and physical addresses.

Reads go through QEMU's GDB stub, which translates them itself: no access bit is set, no fault is raised, no TLB
entry made. The guest must be stopped. Breakpoints that GDB set are not visible in what is read.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gdb

from exogdb.errors import MemoryFault, TargetLostError, UnavailableError
from exogdb.interrupts import interrupts_held
from exogdb.target.connection import is_broken
from exogdb.target.cpus import Cpu, cpu_selected
from exogdb.target.qemu.monitor import run_monitor
from exogdb.x86.memory import ReadableMemory

__all__ = ["BLOCK_SIZE", "PhysicalMemory", "RememberingMemory", "VirtualMemory", "read_selected"]

_PAGE_SIZE = 4096
# A power of two that divides the page size: a block is mapped as a whole or not at all.
BLOCK_SIZE = 256
# QEMU's stub takes packets of 4,096 characters; a byte takes two.
_BYTES_PER_PACKET = 2048
# From GDB 14 on, `Inferior.read_memory` and `write_memory` ask for the memory of any thread of the process, for
# which QEMU's stub takes the first CPU. Values are still read and written as the selected thread sees them.
_ANY_THREAD_SINCE = 14
_BYTES_PER_VALUE = 1 << 15  # GDB refuses values above `max-value-size`, 64 KiB


class VirtualMemory:
    """The address space that `cpu` has loaded now (its CR3). Implements `exogdb.x86.memory.ReadableMemory`."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu

    def read(self, address: int, size: int) -> bytes:
        """Exactly `size` bytes at virtual `address`.

        :raise MemoryFault: the range is not mapped, whole or in part.
        :raise TargetLostError: the connection broke.
        """
        with cpu_selected(self._cpu):
            try:
                return read_selected(address, size)
            except gdb.MemoryError as error:
                raise MemoryFault(address, size) from error
            except (gdb.error, OverflowError) as error:
                raise _to_fault(error, address, size) from error

    def write(self, address: int, data: bytes) -> None:
        """Write `data` at virtual `address`. This changes the guest.

        :raise MemoryFault: the range cannot be written.
        """
        with cpu_selected(self._cpu):
            try:
                _write_selected(address, data)
            except gdb.MemoryError as error:
                raise MemoryFault(address, len(data), f"cannot write at {address:#x}") from error
            except (gdb.error, OverflowError) as error:
                raise _to_fault(error, address, len(data)) from error


class RememberingMemory:
    """Reads whole blocks of `memory` and keeps them: for code that is looked at instruction by instruction.

    `blocks` has what was read, by address divided by `BLOCK_SIZE`. Nothing is ever read again: for one command on
    a stopped guest.
    """

    def __init__(self, memory: ReadableMemory) -> None:
        self._memory = memory
        self.blocks: dict[int, bytes] = {}

    def read(self, address: int, size: int) -> bytes:
        """Exactly `size` bytes at `address`.

        :raise MemoryFault: a block that any of them lies in cannot be read.
        """
        first, last = address // BLOCK_SIZE, (address + size - 1) // BLOCK_SIZE
        data = b"".join(self._block(number) for number in range(first, last + 1))
        start = address - first * BLOCK_SIZE
        return data[start : start + size]

    def _block(self, number: int) -> bytes:
        if number not in self.blocks:
            self.blocks[number] = self._memory.read(number * BLOCK_SIZE, BLOCK_SIZE)
        return self.blocks[number]


class PhysicalMemory:
    """The machine's RAM by physical address. Implements `exogdb.x86.memory.ReadableMemory`.

    Only RAM is read: a load from a device register could change the device. QEMU is asked first whether a page
    is RAM (`gpa2hva`), because its stub would read the device without a word.
    """

    def __init__(self) -> None:
        self._ram_pages: set[int] = set()

    def read(self, address: int, size: int) -> bytes:
        """Exactly `size` bytes at physical `address`.

        :raise MemoryFault: any part of the range is not RAM.
        :raise UnavailableError: the target has no physical memory mode.
        """
        for page in range(address // _PAGE_SIZE, (address + max(size, 1) - 1) // _PAGE_SIZE + 1):
            self._require_ram(page * _PAGE_SIZE)
        with _physical_mode() as connection:
            return b"".join(
                _read_packet(connection, at, min(_BYTES_PER_PACKET, address + size - at))
                for at in range(address, address + size, _BYTES_PER_PACKET)
            )

    def _require_ram(self, page: int) -> None:
        if page in self._ram_pages:
            return
        answer = run_monitor(f"gpa2hva {page:#x}")
        if not answer.startswith("Host virtual address"):
            raise MemoryFault(page, _PAGE_SIZE, f"physical address {page:#x} is not RAM")
        self._ram_pages.add(page)


def read_selected(address: int, size: int) -> bytes:
    """Exactly `size` bytes at virtual `address` as the CPU that GDB has selected sees them.

    :raise gdb.MemoryError: the range is not mapped, whole or in part.
    """
    if int(gdb.VERSION.split(".")[0]) < _ANY_THREAD_SINCE:
        return bytes(gdb.selected_inferior().read_memory(address, size))
    parts = [
        _read_value(at, min(_BYTES_PER_VALUE, address + size - at))
        for at in range(address, address + size, _BYTES_PER_VALUE)
    ]
    return b"".join(parts)


def _read_value(address: int, size: int) -> bytes:
    value = gdb.Value(address).cast(_array_type(size).pointer()).dereference()
    value.fetch_lazy()
    if hasattr(value, "bytes"):  # GDB 15 and newer
        return value.bytes
    return bytes(int(value[index]) & 0xFF for index in range(size))


def _write_selected(address: int, data: bytes) -> None:
    if int(gdb.VERSION.split(".")[0]) < _ANY_THREAD_SINCE:
        gdb.selected_inferior().write_memory(address, data)
    elif data:
        kind = _array_type(len(data))
        assign: Callable[[gdb.Value], None] = gdb.Value(address).cast(kind.pointer()).dereference().assign
        assign(gdb.Value(data, kind))


def _array_type(size: int) -> gdb.Type:
    return gdb.selected_inferior().architecture().integer_type(8, False).array(size - 1)


def _remote_connection() -> gdb.RemoteTargetConnection:
    connection = gdb.selected_inferior().connection
    if not isinstance(connection, gdb.RemoteTargetConnection):
        raise UnavailableError("physical memory needs a connection made by `target remote`")
    return connection


@contextmanager
def _physical_mode() -> Iterator[gdb.RemoteTargetConnection]:
    """The stub takes every address for a physical one inside the block.

    Left so by a Ctrl-C, it would show GDB and its user the wrong memory from then on: that waits.
    """
    connection = _remote_connection()
    with interrupts_held():
        try:
            _expect_ok(connection, "Qqemu.PhyMemMode:1")
            yield connection
        finally:
            _expect_ok(connection, "Qqemu.PhyMemMode:0")


def _expect_ok(connection: gdb.RemoteTargetConnection, packet: str) -> None:
    answer = connection.send_packet(packet)
    if answer != b"OK":
        raise UnavailableError(f"the GDB stub does not know the packet {packet}: it is not QEMU's, or too old")


def _read_packet(connection: gdb.RemoteTargetConnection, address: int, size: int) -> bytes:
    answer = connection.send_packet(f"m{address:x},{size:x}")
    if not answer or answer.startswith(b"E"):
        raise MemoryFault(address, size, f"cannot read {size} bytes at physical address {address:#x}")
    return bytes.fromhex(answer.decode("ascii"))


def _to_fault(error: Exception, address: int, size: int) -> UnavailableError:
    if is_broken(error):
        return TargetLostError(f"the connection to QEMU broke while reading memory at {address:#x}")
    return MemoryFault(address, size)
