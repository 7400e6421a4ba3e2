"""A handler's parameters put to the six arguments of a system call: names, types, and the text behind pointers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from exogdb.errors import MemoryFault
from exogdb.reading import Reading, Value
from exogdb.x86.memory import ReadableMemory

__all__ = ["Argument", "Parameter", "decode_arguments", "decode_integer", "decode_text"]

# GDB has one type for `*const u8` and `*mut u8` and the name that it read last, so both may be text.
_BYTES = re.compile(r"^\*(const|mut) (u8|i8|(\w+::)*c_char)$|^(const )?(char|u8|unsigned char) *(__user *)?\*$")
_LENGTH = re.compile(r"^(.*_)?(len|length|size|count|n|nbytes)$")
_LONGEST_TEXT = 64  # bytes shown
_INTEGER = re.compile(
    r"^(?:(?P<letter>[iu])(?P<bits>8|16|32|64|size)|(?:unsigned |signed )?(?:int|long|short|char))$"
)
_C_BITS = {"char": 8, "short": 16, "int": 32, "long": 64}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a handler as debug info has it: `*const u8`, `i32`, `const char *`."""

    name: str
    type: str


@dataclass(frozen=True)
class Argument:
    """One of the six arguments. `source` says where the value is from; `text` is what a pointer to text points at.

    `name` and `type` are the handler's, empty where it has no such parameter or is not known.
    """

    register: str
    value: Value
    source: str
    name: str = ""
    type: str = ""
    text: str = ""


def decode_arguments(
    values: Sequence[tuple[str, Value, str]], parameters: Sequence[Parameter], memory: ReadableMemory
) -> tuple[Argument, ...]:
    """(register, value, source) for each argument, with the handler's parameters and texts."""
    arguments = []
    for position, (register, value, source) in enumerate(values):
        if position >= len(parameters):
            arguments.append(Argument(register, value, source))
            continue
        parameter = parameters[position]
        text = ""
        if isinstance(value, Reading) and _BYTES.match(parameter.type):
            text = _read_text(value.value, _find_length(position, values, parameters), memory)
        arguments.append(Argument(register, value, source, parameter.name, parameter.type, text))
    return tuple(arguments)


def _find_length(
    position: int, values: Sequence[tuple[str, Value, str]], parameters: Sequence[Parameter]
) -> int | None:
    """The value of the parameter behind, if it is named like a length."""
    if position + 1 >= min(len(parameters), len(values)) or not _LENGTH.match(parameters[position + 1].name):
        return None
    value = values[position + 1][1]
    return value.value if isinstance(value, Reading) else None


def _read_text(address: int, length: int | None, memory: ReadableMemory) -> str:
    wanted = _LONGEST_TEXT if length is None else min(length, _LONGEST_TEXT)
    data = b""
    for at in range(address, address + wanted):
        try:
            data += memory.read(at, 1)
        except (MemoryFault, OverflowError):
            break
        if length is None and data.endswith(b"\0"):
            return decode_text(data[:-1]) if _is_text(data[:-1]) else ""
    if length is None and not _is_text(data):
        return ""
    if not data:
        return ""
    cut = length is None or length > len(data)
    return decode_text(data) + ("..." if cut else "")


def decode_integer(value: int, type_name: str) -> int | None:
    """`value` as a signed or unsigned integer of the type, None for types that are no integers.

    >>> decode_integer(0xffffffffffffffff, "i32"), decode_integer(0x22, "unsigned int")
    (-1, 34)
    >>> decode_integer(0x13004000, "*const u8")
    """
    found = _INTEGER.match(type_name)
    if found is None:
        return None
    size = found["bits"]
    bits = _C_BITS[type_name.split()[-1]] if size is None else 64 if size == "size" else int(size)
    value &= (1 << bits) - 1
    is_signed = found["letter"] == "i" or (not found["letter"] and "unsigned" not in type_name)
    return value - (1 << bits) if is_signed and value >> (bits - 1) else value


def _is_text(data: bytes) -> bool:
    """Whether `data` looks like text: the types do not say what is text and what is a buffer."""
    return bool(data) and all(0x20 <= byte < 0x7F or byte in b"\t\n\r" for byte in data)


def decode_text(data: bytes) -> str:
    r"""`data` in double quotes as C would write it.

    >>> decode_text(b'a"b\n\x00\xff')
    '"a\\"b\\n\\x00\\xff"'
    """
    named = {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}
    inside = "".join(named.get(byte, chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}") for byte in data)
    return f'"{inside}"'
