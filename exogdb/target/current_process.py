"""Who runs on a CPU, as the kernel's own per-CPU block says it, by the names in its debug info.

A pointer field of the per-CPU block whose name begins with `current` leads to the process, a field `pid`, `tgid`
or `id` of that to its number. A kernel without them has no process numbers that exogdb could know.
"""

import re
from dataclasses import dataclass

import gdb

from exogdb.errors import MemoryFault
from exogdb.reading import Unavailable
from exogdb.target.cpus import Cpu
from exogdb.target.memory import VirtualMemory
from exogdb.target.percpu import read_percpu
from exogdb.target.registers import read_register

__all__ = ["find_process_id", "forget_layouts"]

_NUMBERS = ("pid", "tgid", "id")
_POINTER = re.compile(r"^\*(?:mut|const) (?P<rust>.+)$|^(?P<c>.+?)\s*\*$")


@dataclass(frozen=True)
class _Layout:
    """Offsets in bytes: of the pointer in the per-CPU block, of the number in the process; the number's size."""

    pointer: int
    number: int
    size: int


# Finding a type by its debug info takes long, and every stop needs it.
_layouts: dict[int, _Layout | None] = {}


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
        process = int.from_bytes(memory.read(base + layout.pointer, 8), "little")
        return int.from_bytes(memory.read(process + layout.number, layout.size), "little") if process else None
    except MemoryFault:
        return None


def forget_layouts() -> None:
    """Another kernel may have come: look for its types anew."""
    _layouts.clear()


def _find_layout(memory: VirtualMemory, base: int) -> _Layout | None:
    block = read_percpu(memory, base, None)
    if isinstance(block, Unavailable):
        return None
    current = next((field for field in block.fields if field.name.startswith("current")), None)
    number = _find_number(current.type) if current is not None else None
    if current is None or number is None or number.type is None or number.bitpos is None:
        return None
    return _Layout(current.offset, number.bitpos // 8, number.type.sizeof)


def _find_number(pointer: str) -> gdb.Field | None:
    found = _POINTER.match(pointer)
    if found is None:
        return None
    try:
        fields = {field.name: field for field in gdb.lookup_type(found["rust"] or found["c"]).fields()}
    except gdb.error:
        return None
    return next((fields[name] for name in _NUMBERS if name in fields), None)
