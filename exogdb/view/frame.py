"""A system call in progress as text and JSON: number, handler, arguments, and where every register is saved."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exogdb.abi.frame import Moment, SavedFrame, SavedRegister
from exogdb.abi.signature import Argument, decode_integer
from exogdb.reading import Reading, Unavailable, Value
from exogdb.view.style import Style
from exogdb.view.table import render_sentence
from exogdb.view.value import hex64
from exogdb.x86.rflags import decode_rflags

__all__ = ["FrameReport", "frame_to_json", "render_frame"]

_LARGEST_DECIMAL = 1 << 31
_LARGEST_UNTYPED = 1 << 20
_HEADINGS = {
    Moment.IN_STUB: "in the entry stub",
    Moment.IN_CALL: "in a system call",
    Moment.BLOCKED: "blocked in a system call",
    Moment.USER: "in user mode: no system call in progress",
    Moment.NO_CALL: "in the kernel, but in no system call",
}


@dataclass(frozen=True)
class FrameReport:
    """What to show. `where` names the CPU or process; `symbols` names addresses."""

    cpu: int | None
    where: str
    moment: Moment
    number: Value
    name: str
    handler: str
    arguments: tuple[Argument, ...]
    frame: SavedFrame
    symbols: Mapping[int, str]
    doubts: tuple[str, ...] = ()


def render_frame(report: FrameReport, style: Style) -> str:
    """Heading, call with arguments, the saved registers, and what could not be known."""
    stale = "; the last frame is stale" if report.moment is Moment.USER and report.frame.registers else ""
    lines = [f"{report.where}: {_HEADINGS[report.moment]}{stale}"]
    if report.moment not in (Moment.USER, Moment.NO_CALL):
        lines += _render_call(report, style)
    if report.frame.registers:
        base = f" at {report.frame.base:#x}" if report.frame.base is not None else ", not built yet"
        if report.moment is Moment.USER:
            base += ": what the last call left"
        lines += ["", style.paint("heading", f"saved frame{base}")]
        lines += [_render_register(register, report.symbols, style) for register in report.frame.registers]
    elif isinstance(report.number, Unavailable):
        lines.append(render_sentence(f"  {report.number.reason}", style))
    if report.doubts:
        lines += ["", *(render_sentence(f"not sure: {doubt}", style, "warning") for doubt in report.doubts)]
    return "\n".join(lines)


def _render_call(report: FrameReport, style: Style) -> list[str]:
    if isinstance(report.number, Unavailable):
        head = f"  number: unavailable ({report.number.reason})"
    else:
        name = style.paint("name", report.name or "without a name in the table")
        handler = f", handled by {style.paint('symbol', report.handler)}" if report.handler else ""
        head = f"  {report.number.value} {name}{handler}  {style.paint('faint', f'({report.number.source})')}"
    rows = [_argument_cells(position, argument) for position, argument in enumerate(report.arguments, 1)]
    width = max((len(cells[0]) for cells in rows), default=0)
    return [head, *(f"  {label:<{width}}  {value}" for label, value in rows)]


def _argument_cells(position: int, argument: Argument) -> tuple[str, str]:
    label = f"arg{position} {argument.register:<3} {argument.name}".rstrip()
    if isinstance(argument.value, Unavailable):
        return label, f"unavailable ({argument.value.reason})"
    value = argument.value.value
    text = f"  {argument.text}" if argument.text else ""
    return label, f"{hex64(value)}{_in_decimal(value, argument.type)}{text}  ({argument.source})"


def _in_decimal(value: int, type_name: str) -> str:
    """For integers of few digits, and for small values whose type is not known; one digit says it already."""
    number = decode_integer(value, type_name) if type_name else value
    limit = _LARGEST_DECIMAL if type_name else _LARGEST_UNTYPED
    return f" = {number}" if number is not None and abs(number) < limit and not 0 <= number < 10 else ""


def _render_register(register: SavedRegister, symbols: Mapping[int, str], style: Style) -> str:
    place = style.paint("address", f"{register.address:#018x}") if register.address is not None else " " * 18
    name = style.paint("name", f"{register.name:<6}")
    if isinstance(register.value, Unavailable):
        return f"  {place}  {name}  unavailable ({register.value.reason})"
    value = register.value.value
    meaning = symbols.get(value, "")
    if register.name == "rflags":
        meaning = " ".join(decode_rflags(value))
    return f"  {place}  {name}  {value:#018x}  {style.paint('symbol', meaning)}".rstrip() + _where(register)


def _where(register: SavedRegister) -> str:
    return f"  ({register.where})" if not register.where.startswith("frame+") else ""


def frame_to_json(report: FrameReport) -> dict[str, Any]:
    """The fields of the screen; 64-bit values as hex strings, `{"unavailable": reason}` where there is none."""
    return {
        "cpu": report.cpu,
        "state": report.moment.value,
        "number": report.number.value if isinstance(report.number, Reading) else _to_json(report.number),
        "number_source": report.number.source if isinstance(report.number, Reading) else None,
        "name": report.name or None,
        "handler": report.handler or None,
        "args": [_to_json(argument.value) for argument in report.arguments],
        "arguments": [_argument_to_json(argument) for argument in report.arguments],
        "base": hex64(report.frame.base) if report.frame.base is not None else None,
        "saved": {register.name: _to_json(register.value) for register in report.frame.registers},
        "slots": {
            register.name: hex64(register.address)
            for register in report.frame.registers
            if register.address is not None
        },
        "symbol": _rip_symbol(report),
        "doubts": list(report.doubts),
    }


def _rip_symbol(report: FrameReport) -> str | None:
    rip = report.frame.find("rip")
    return report.symbols.get(rip.value.value) if rip is not None and isinstance(rip.value, Reading) else None


def _argument_to_json(argument: Argument) -> dict[str, Any]:
    return {
        "register": argument.register,
        "name": argument.name or None,
        "type": argument.type or None,
        "value": _to_json(argument.value),
        "text": argument.text or None,
        "source": argument.source,
    }


def _to_json(value: Value) -> Any:
    return hex64(value.value) if isinstance(value, Reading) else {"unavailable": value.reason}
