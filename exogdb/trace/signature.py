"""What a handler takes, from its debug info: names, and what each value means.

A pointer to bytes with a length behind it is a buffer; a pointer to constant bytes without one is text that ends
with a zero byte; a pointer to pointers to bytes is an array of such texts, which ends with a null pointer unless
its length follows. Flags are known by their parameter's name.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

__all__ = ["CType", "Kind", "Parameter", "Signature", "parse_flag_constants", "to_signature"]


class Kind(Enum):
    """How a value is written."""

    SIGNED = auto()
    UNSIGNED = auto()
    FLAGS = auto()
    OCTAL = auto()
    TEXT = auto()
    TEXTS = auto()
    BUFFER = auto()
    POINTER = auto()


@dataclass(frozen=True)
class CType:
    """A parameter's type in debug info: an integer of `bits`, or a pointer to bytes, to such pointers, or else."""

    bits: int
    is_signed: bool = False
    is_pointer: bool = False
    points_to_bytes: bool = False
    points_to_texts: bool = False
    is_writable: bool = False


@dataclass(frozen=True)
class Parameter:
    """One argument. `length_index` is the one that holds a buffer's or array's length, `is_output` who fills it.

    `field_mask` are the bits of flags that hold a number, of which each value has a name (how a file is opened).
    """

    name: str
    kind: Kind
    bits: int = 64
    constants: Mapping[str, int] = field(default_factory=dict)
    length_index: int | None = None
    is_output: bool = False
    field_mask: int = 0


@dataclass(frozen=True)
class Signature:
    """A handler. `returns` is False for one that never does (`-> !`)."""

    parameters: tuple[Parameter, ...]
    returns: bool = True


_LENGTH = re.compile(r"len|size|count|bytes", re.IGNORECASE)
_ARRAY_LENGTH = re.compile(r"^argc$|len|count", re.IGNORECASE)
_PROTECTION = re.compile(r"^prot", re.IGNORECASE)
_FLAGS = re.compile(r"flags?$", re.IGNORECASE)
_MODE = re.compile(r"^mode$")
_ACCESS_MODE = 3  # O_RDONLY, O_WRONLY and O_RDWR are 0, 1 and 2 (POSIX, fcntl.h: O_ACCMODE)
_MASK = re.compile(r"_(?:ACC(?:ESS|MODE)|MASK|START|END)$")  # no flags themselves
_CONSTANT = re.compile(
    r"^\s*(?:pub(?:\([\w\s:]+\))?\s+)?(?:const\s+|#\s*define\s+)((?:O|MAP|PROT)_[A-Z_0-9]+)"
    r"(?:\s*:\s*\w+\s*=)?\s*(0[xX][0-9a-fA-F_]+|[0-9]+)\s*(?:;|$|/)",
    re.MULTILINE,
)


def to_signature(
    parameters: Iterable[tuple[str, CType]], constants: Mapping[str, int], name: str = "", *, returns: bool = True
) -> Signature:
    """A signature from parameter names and types. `constants` are the kernel's own `O_`, `MAP_` and `PROT_`."""
    listed = list(parameters)
    found = [_to_parameter(index, listed, constants, name) for index in range(len(listed))]
    return Signature(tuple(found), returns)


def parse_flag_constants(text: str) -> dict[str, int]:
    """The flag constants that a Rust source or a C header defines.

    >>> parse_flag_constants("pub const O_CREAT: i32 = 0x40;\\n#define PROT_READ 1\\nconst OTHER: u8 = 3;")
    {'O_CREAT': 64, 'PROT_READ': 1}
    """
    found = {name: int(value.replace("_", ""), 0) for name, value in _CONSTANT.findall(text)}
    return {name: value for name, value in found.items() if not _MASK.search(name)}


def _to_parameter(
    index: int, listed: list[tuple[str, CType]], constants: Mapping[str, int], call: str
) -> Parameter:
    name, kind = listed[index]
    if kind.is_pointer:
        return _to_pointer(index, listed)
    prefix = _flag_prefix(name, call)
    chosen = {key: value for key, value in constants.items() if prefix and key.startswith(prefix)}
    if chosen:
        return Parameter(name, Kind.FLAGS, kind.bits, chosen, field_mask=_ACCESS_MODE if prefix == "O_" else 0)
    if _MODE.search(name):
        return Parameter(name, Kind.OCTAL, kind.bits)
    return Parameter(name, Kind.SIGNED if kind.is_signed else Kind.UNSIGNED, kind.bits)


def _to_pointer(index: int, listed: list[tuple[str, CType]]) -> Parameter:
    name, kind = listed[index]
    follower = listed[index + 1] if index + 1 < len(listed) else None
    lengths = _ARRAY_LENGTH if kind.points_to_texts else _LENGTH
    has_length = follower is not None and not follower[1].is_pointer and bool(lengths.search(follower[0]))
    if kind.points_to_texts:
        return Parameter(name, Kind.TEXTS, length_index=index + 1 if has_length else None)
    if not kind.points_to_bytes:
        return Parameter(name, Kind.POINTER)
    if has_length:
        return Parameter(name, Kind.BUFFER, length_index=index + 1, is_output=kind.is_writable)
    return Parameter(name, Kind.POINTER if kind.is_writable else Kind.TEXT)


def _flag_prefix(parameter: str, call: str) -> str:
    if _PROTECTION.search(parameter):
        return "PROT_"
    if _FLAGS.search(parameter):
        return {"open": "O_", "openat": "O_", "mmap": "MAP_"}.get(call, "")
    return ""
