"""Who runs on a CPU, as the kernel's own per-CPU block says it, by the names in its debug info.

A pointer field of the per-CPU block whose name begins with `current` leads to the process, a field `pid`, `tgid`
or `id` of that to its number. A kernel without them has no process numbers that exogdb could know.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import gdb

from exogdb.errors import MemoryFault
from exogdb.reading import Unavailable
from exogdb.target.cpus import Cpu
from exogdb.target.memory import VirtualMemory
from exogdb.target.percpu import read_percpu
from exogdb.target.registers import read_register
from exogdb.x86.memory import ReadableMemory

__all__ = ["ProcessId", "find_process_id", "find_process_layout", "forget_layouts"]

_NUMBERS = ("pid", "tgid", "id")
_SHARED_NUMBERS = ("tgid", "pid", "id")  # where there are both, `pid` is the thread's
_POINTER = re.compile(r"^\*(?:mut|const) (?P<rust>.+)$|^(?P<c>.+?)\s*\*$")


@dataclass(frozen=True)
class ProcessId:
    """Where the number of the running process is found.

    Offsets in bytes: of the pointer in the per-CPU block, of the number in the process; the number's size.
    """

    pointer: int
    number: int
    size: int

    def read(self, memory: ReadableMemory, gs_base: int) -> int | None:
        """The number, with the kernel's GS base; None if no process runs.

        :raise MemoryFault: the kernel's data is not mapped.
        """
        process = int.from_bytes(memory.read(gs_base + self.pointer, 8), "little")
        return int.from_bytes(memory.read(process + self.number, self.size), "little") if process else None


# Finding a type by its debug info takes long, and every stop needs it.
_layouts: dict[int, ProcessId | None] = {}


def find_process_id(cpu: Cpu, gs_base: int | None = None) -> int | None:
    """The number of the process that `cpu` runs; None if it runs none or the kernel's data does not tell.

    `gs_base` is the kernel's, the active one if it is not given. Reads memory only.
    """
    memory, base = VirtualMemory(cpu), read_register(cpu, "gs_base") if gs_base is None else gs_base
    if base not in _layouts:
        _layouts[base] = _find_layout(memory, base)
    layout = _layouts[base]
    if layout is None:
        return None
    try:
        return layout.read(memory, base)
    except MemoryFault:
        return None


def find_process_layout(cpu: Cpu) -> ProcessId | None:
    """Where the number that all threads of a process share is found; None if the kernel's data does not tell.

    Reads registers of `cpu` and memory only; the guest must be stopped.
    """
    memory = VirtualMemory(cpu)
    bases = (read_register(cpu, name) for name in ("gs_base", "k_gs_base"))
    found = (_layout_at(memory, base, _SHARED_NUMBERS) for base in bases if base)
    return next((layout for layout in found if layout is not None), None)


def forget_layouts() -> None:
    """Another kernel may have come: look for its types anew."""
    _layouts.clear()


def _find_layout(memory: VirtualMemory, base: int) -> ProcessId | None:
    return _layout_at(memory, base, _NUMBERS)


def _layout_at(memory: VirtualMemory, base: int, names: Sequence[str]) -> ProcessId | None:
    block = read_percpu(memory, base, None)
    if isinstance(block, Unavailable):
        return None
    current = next((field for field in block.fields if field.name.startswith("current")), None)
    number = _find_number(current.type, names) if current is not None else None
    if current is None or number is None or number.type is None or number.bitpos is None:
        return None
    return ProcessId(current.offset, number.bitpos // 8, number.type.sizeof)


def _find_number(pointer: str, names: Sequence[str]) -> gdb.Field | None:
    found = _POINTER.match(pointer)
    if found is None:
        return None
    try:
        fields = {field.name: field for field in gdb.lookup_type(found["rust"] or found["c"]).fields()}
    except gdb.error:
        return None
    return next((fields[name] for name in names if name in fields), None)
