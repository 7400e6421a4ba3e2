"""exogdb/trace/signature.py: what parameters mean, from their names and types."""

import pytest

from exogdb.trace.signature import CType, Kind, parse_flag_constants, to_signature

_WORD = CType(64)
_INT = CType(32, is_signed=True)
_CONST_BYTES = CType(64, is_pointer=True, points_to_bytes=True)
_BYTES = CType(64, is_pointer=True, points_to_bytes=True, is_writable=True)
_OTHER_POINTER = CType(64, is_pointer=True, is_writable=True)
_CONSTANTS = {"O_CREAT": 0x40, "MAP_PRIVATE": 2, "PROT_READ": 1}


def test_a_buffer_with_its_length() -> None:
    given, filled = (
        to_signature([("descriptor", _INT), ("buffer", kind), ("length", _WORD)], {}).parameters[1]
        for kind in (_CONST_BYTES, _BYTES)
    )
    assert (given.kind, given.length_index, given.is_output) == (Kind.BUFFER, 2, False)
    assert (filled.kind, filled.length_index, filled.is_output) == (Kind.BUFFER, 2, True)


def test_constant_bytes_without_a_length_are_text() -> None:
    path, flags = to_signature([("path", _CONST_BYTES), ("flags", _INT)], {}).parameters
    assert (path.kind, flags.kind) == (Kind.TEXT, Kind.SIGNED)


def test_an_array_of_texts_ends_with_a_null_pointer_or_has_its_length_behind_it() -> None:
    texts = CType(64, is_pointer=True, points_to_texts=True)
    counted, _ = to_signature([("argv", texts), ("argc", _WORD)], {}).parameters
    ended, _ = to_signature([("argv", texts), ("envp", texts)], {}).parameters
    assert (counted.kind, counted.length_index) == (Kind.TEXTS, 1)
    assert (ended.kind, ended.length_index) == (Kind.TEXTS, None)


@pytest.mark.parametrize("kind", [_OTHER_POINTER, _BYTES])
def test_other_pointers_are_addresses(kind: CType) -> None:
    (status,) = to_signature([("status", kind)], {}).parameters
    assert status.kind is Kind.POINTER


@pytest.mark.parametrize(
    ("call", "name", "expected"),
    [
        ("open", "flags", {"O_CREAT": 0x40}),
        ("mmap", "flags", {"MAP_PRIVATE": 2}),
        ("mprotect", "prot", {"PROT_READ": 1}),
    ],
)
def test_flags_are_known_by_the_parameters_name(call: str, name: str, expected: dict[str, int]) -> None:
    (parameter,) = to_signature([(name, _WORD)], _CONSTANTS, call).parameters
    assert (parameter.kind, parameter.constants) == (Kind.FLAGS, expected)


def test_flags_without_constants_are_numbers() -> None:
    (parameter,) = to_signature([("flags", _WORD)], {}, "open").parameters
    assert parameter.kind is Kind.UNSIGNED


def test_masks_and_bounds_are_no_flags() -> None:
    source = "pub const O_ACCMODE: i32 = 3;\nconst MAP_START: u64 = 0x2000_0000;\nconst MAP_FIXED: u64 = 0x10;"
    assert parse_flag_constants(source) == {"MAP_FIXED": 0x10}
