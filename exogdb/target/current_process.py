"""Who runs on a CPU, as the kernel's own per-CPU block says it, by the names in its debug info.

A pointer field of the per-CPU block whose name begins with `current` leads to the process, a field `pid`, `tgid`
or `id` of that to its number. A kernel without them has no process numbers that exogdb could know.
"""

import re

import gdb

from exogdb.errors import MemoryFault
from exogdb.reading import Reading, Unavailable
from exogdb.target.cpus import Cpu
from exogdb.target.memory import VirtualMemory
from exogdb.target.percpu import read_percpu
from exogdb.target.registers import read_register

__all__ = ["find_process_id"]

_NUMBERS = ("pid", "tgid", "id")
_POINTER = re.compile(r"^\*(?:mut|const) (?P<rust>.+)$|^(?P<c>.+?)\s*\*$")


def find_process_id(cpu: Cpu) -> int | None:
    """The number of the process that `cpu` runs; None if it runs none or the kernel's data does not tell.

    `cpu` must be in the kernel with the kernel's GS base active. Reads memory only.
    """
    memory = VirtualMemory(cpu)
    block = read_percpu(memory, read_register(cpu, "gs_base"), None)
    if isinstance(block, Unavailable):
        return None
    for field in block.fields:
        if field.name.startswith("current") and isinstance(field.value, Reading) and field.value.value:
            return _read_number(memory, field.value.value, field.type)
    return None


def _read_number(memory: VirtualMemory, address: int, pointer: str) -> int | None:
    found = _POINTER.match(pointer)
    if found is None:
        return None
    try:
        kind = gdb.lookup_type(found["rust"] or found["c"])
    except gdb.error:
        return None
    fields = {field.name: field for field in kind.fields()}
    number = next((fields[name] for name in _NUMBERS if name in fields), None)
    if number is None or number.type is None or number.bitpos is None:
        return None
    try:
        data = memory.read(address + number.bitpos // 8, number.type.sizeof)
    except MemoryFault:
        return None
    return int.from_bytes(data, "little")
