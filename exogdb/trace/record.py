"""A trace as a file: JSON lines, one object a line, readable by anything.

::

    {"format": "exogdb-trace", "version": 1, "engine": "...", "clock": "...", "kernel": "...", ...}     first line
    {"seq": 1, "cpu": 0, "process": 1, "space": "0x..", "nr": 101, "name": "ipc_send", ...}             one a call
    {"end": {"calls": 1, "unseen": 0, "lost": 0, "problems": []}}                                       last line

64-bit values are hex strings. Calls stand in the order in which they returned; `seq` is the order of entry. A file
without its last line was cut off (the writer died), and the reader says so.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from exogdb.errors import FormatError
from exogdb.trace.call import Call, CallState, Parent
from exogdb.trace.unit import Unit

__all__ = [
    "FORMAT",
    "VERSION",
    "Header",
    "Record",
    "RecordReader",
    "Shown",
    "call_from_json",
    "call_to_json",
    "read_record",
]

FORMAT = "exogdb-trace"
VERSION = 1

# What reading a damaged line comes to.
_BROKEN = (ValueError, KeyError, TypeError, RecursionError)


@dataclass(frozen=True)
class Header:
    """How a trace was taken. `clock` says in words what its times mean, in `unit`, `doubts` what is not sure."""

    engine: str
    clock: str
    kernel: str
    cpus: int
    started: str = ""
    doubts: tuple[str, ...] = ()
    unit: str = Unit.NANOSECONDS.value

    def to_json(self) -> dict[str, Any]:
        """The first line of the file."""
        return {"format": FORMAT, "version": VERSION} | self.__dict__


@dataclass(frozen=True)
class Shown:
    """A call in words, as the writer knew them: `arguments` each as `name=value`, `program` empty if unknown."""

    name: str
    arguments: tuple[str, ...] = ()
    result: str = ""
    program: str = ""


@dataclass
class Record:
    """A whole file: the calls, and beside each of them its words."""

    header: Header
    calls: list[Call] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    end: dict[str, Any] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the writer came to its end."""
        return self.end is not None


def call_to_json(call: Call, shown: Shown) -> dict[str, Any]:
    """One call as a line of the file, with the text that a user would read beside the raw values."""
    return {
        "seq": call.sequence,
        "cpu": call.cpu,
        "process": call.process,
        "program": shown.program,
        "space": _hex(call.space),
        "nr": call.number,
        "name": shown.name,
        "args": None if call.arguments is None else [_hex(value) for value in call.arguments],
        "shown": list(shown.arguments),
        "rip": _hex(call.user_rip),
        "rsp": _hex(call.user_rsp),
        "state": call.state.value,
        "result": _hex(call.result),
        "shown_result": shown.result,
        "entry_ns": call.entry_ns,
        "exit_ns": call.exit_ns,
        "return_cpu": call.return_cpu,
        "return_space": _hex(call.return_space),
        "kernel_stack": _hex(call.kernel_stack),
        "ambiguous": call.is_ambiguous,
        "parent": call.parent.process if call.parent is not None else None,
        "parent_is_guess": call.parent is not None and call.parent.is_guess,
    }


def call_from_json(line: dict[str, Any]) -> Call:
    """The call in one line of the file.

    :raise KeyError: a field is missing. :raise ValueError, TypeError: a field is not what it should be.
    """
    arguments = line["args"]
    return Call(
        sequence=_integer(line["seq"]),
        cpu=_maybe_integer(line["cpu"]),
        space=int(line["space"], 16),
        process=_integer(line["process"]),
        number=_maybe_integer(line["nr"]),
        arguments=None if arguments is None else tuple([int(value, 16) for value in arguments]),
        user_rip=_unhex(line["rip"]),
        user_rsp=_unhex(line["rsp"]),
        entry_ns=_maybe_integer(line["entry_ns"]),
        state=CallState(line["state"]),
        result=_unhex(line["result"]),
        exit_ns=_maybe_integer(line["exit_ns"]),
        return_cpu=_maybe_integer(line["return_cpu"]),
        return_space=_unhex(line["return_space"]),
        kernel_stack=_unhex(line["kernel_stack"]),
        is_ambiguous=bool(line["ambiguous"]),
        parent=_parent_from_json(line),
    )


def _parent_from_json(line: dict[str, Any]) -> Parent | None:
    parent = line.get("parent")  # the first records of this version have none
    return None if parent is None else Parent(_integer(parent), bool(line["parent_is_guess"]))


class RecordReader:
    """Reads a file line by line: iterate once for its calls, each with its words.

    `end` and `calls`, how many there were, are known afterwards. Only one call is held at a time, so that a trace
    may be larger than memory.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        """Read the first line.

        :raise FormatError: not a record of this version.
        """
        self._numbered = enumerate(lines, start=1)
        self.header = _read_header(self._numbered)
        self.end: dict[str, Any] | None = None
        self.calls = 0

    def __iter__(self) -> Iterator[tuple[Call, Shown]]:
        """The calls, in the order in which they returned. A cut-off last line is left out, and `end` stays None.

        :raise FormatError: a line in the middle cannot be read, or there are more after the last.
        """
        broken = 0
        for number, text in self._numbered:
            if broken or self.end is not None:
                raise FormatError(f"line {broken or number} of the trace cannot be read")
            try:
                line = _parse(text)
                if "end" in line:
                    self.end = _object(line["end"])
                    continue
                found = call_from_json(line), _shown_from_json(line)
            except _BROKEN:
                broken = number
            else:
                self.calls += 1
                yield found


def read_record(lines: Iterable[str]) -> Record:
    """A whole record from its lines. A cut-off last line makes an incomplete record, not an error.

    :raise FormatError: not a record of this version, or a line in the middle that cannot be read.
    """
    reader = RecordReader(lines)
    record = Record(reader.header)
    for call, shown in reader:
        record.calls.append(call)
        record.shown.append(shown)
    record.end = reader.end
    return record


def _shown_from_json(line: dict[str, Any]) -> Shown:
    texts = _text(line["name"]), _texts(line["shown"]), _text(line["shown_result"]), _text(line["program"])
    return Shown(*texts)


def _read_header(numbered: Iterator[tuple[int, str]]) -> Header:
    _, text = next(numbered, (0, ""))
    try:
        line = _parse(text)
        if line["format"] != FORMAT:
            raise FormatError("this is not a trace: the first line names another format")
        if _integer(line["version"]) != VERSION:
            raise FormatError(f"this trace has version {line['version']}; this exogdb reads version {VERSION}")
        doubts = _texts(line.get("doubts", []))  # the first records of this version have neither
        unit = Unit(line.get("unit", Unit.NANOSECONDS.value)).value
        engine, clock, kernel, started = (_text(line[key]) for key in ("engine", "clock", "kernel", "started"))
        return Header(engine, clock, kernel, _integer(line["cpus"]), started, doubts, unit)
    except _BROKEN as error:
        raise FormatError(
            "this is not a trace: its first line is no header (make one with `exo-syscall record`)"
        ) from error


def _parse(text: str) -> dict[str, Any]:
    """One line. NaN and Infinity, which Python writes and reads, are not JSON (RFC 8259, 6)."""
    return _object(json.loads(text, parse_constant=_integer))


def _object(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise TypeError(value)
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:  # not a bool either, which is an int to `isinstance`
        raise TypeError(value)
    return value


def _maybe_integer(value: Any) -> int | None:
    return None if value is None else _integer(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(value)
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if type(value) is not list:
        raise TypeError(value)
    return tuple([_text(each) for each in value])


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


def _unhex(text: str | None) -> int | None:
    return None if text is None else int(text, 16)
