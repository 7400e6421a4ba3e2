"""The words of a call: its name, its arguments by name and type, its result.

An argument's type comes from the handler's debug info; where there is none all six registers are shown, as `arg1`
to `arg6`. Text behind a pointer is shown only as far as the engine could prove that it is what the call was given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

from exogdb.abi.numbers import NumberTable
from exogdb.trace.call import Call
from exogdb.trace.signature import Kind, Parameter, Signature
from exogdb.x86.word import to_signed

__all__ = ["CallWords", "quote"]

_LARGEST_DECIMAL = 1 << 20
_LONGEST_TEXT = 32
_MOST_TEXTS = 16
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\f": "\\f", "\v": "\\v", '"': '\\"', "\\": "\\\\"}


def _no_text(_call: Call, _index: int) -> bytes | None:
    return None


def _no_texts(_call: Call, _index: int) -> list[bytes | int] | None:
    return None


def _no_stack(_call: Call) -> list[str]:
    return []


def _no_program(_address: int) -> str:
    return ""


@dataclass
class CallWords:
    """Implements `exogdb.view.trace.CallDescription`.

    `read_text(call, index)` gives the bytes that argument `index` (from 0) points at, or None where they are not
    known for certain, `read_texts` the texts of an array and the address of each that is not known;
    `find_program(user_rip)` names a program; `errors` maps an error's number to its name.
    """

    numbers: NumberTable
    signatures: Mapping[int, Signature] = field(default_factory=dict)
    errors: Mapping[int, str] = field(default_factory=dict)
    read_text: Callable[[Call, int], bytes | None] = _no_text
    find_program: Callable[[int], str] = _no_program
    find_stack: Callable[[Call], list[str]] = _no_stack
    read_texts: Callable[[Call, int], list[bytes | int] | None] = _no_texts

    def name(self, number: int | None) -> str:
        """The name in the kernel's table, or the number."""
        return "?" if number is None else self.numbers.name_of(number)

    def arguments(self, call: Call) -> list[str]:
        """Each argument as `name=value`; none where the entry was not seen."""
        if call.arguments is None or call.number is None:
            return []
        signature = self.signatures.get(call.number)
        if signature is None:
            return [f"arg{index}={value:#x}" for index, value in enumerate(call.arguments, start=1)]
        pairs = zip(signature.parameters, call.arguments, strict=False)
        return [
            f"{parameter.name}={self._argument(call, index, parameter, value)}"
            for index, (parameter, value) in enumerate(pairs)
        ]

    def outputs(self, call: Call) -> list[str]:
        """The buffers that the call filled, where their content is known."""
        signature = self.signatures.get(call.number) if call.number is not None else None
        if signature is None:
            return []
        filled = [(index, each.name) for index, each in enumerate(signature.parameters) if each.is_output]
        found = [(name, self.read_text(call, index)) for index, name in filled]
        return [f"{name}={quote(text)}" for name, text in found if text is not None]

    def result(self, call: Call) -> str:
        """The value in decimal, or in hex where it looks like an address; errors by name."""
        if call.result is None:
            return "? (not in the log)"
        if call.failed:
            value = to_signed(call.result)
            name = self.errors.get(-value)
            return f"{value} {name}" if name else str(value)
        return _number(call.result)

    def program(self, call: Call) -> str:
        """The program whose code made the call."""
        return self.find_program(call.user_rip) if call.user_rip is not None else ""

    def stack(self, call: Call) -> list[str]:
        """The caller's backtrace, if the engine recorded one."""
        return self.find_stack(call)

    def _argument(self, call: Call, index: int, parameter: Parameter, value: int) -> str:
        match parameter.kind:
            case Kind.SIGNED:
                return str(_narrow(value, parameter.bits))
            case Kind.UNSIGNED:
                return _number(value & ((1 << parameter.bits) - 1))
            case Kind.FLAGS:
                return _flags(value & ((1 << parameter.bits) - 1), parameter.constants, parameter.field_mask)
            case Kind.OCTAL:
                bits = value & ((1 << parameter.bits) - 1)
                return f"0{bits:o}" if bits else "0"
            case Kind.TEXT | Kind.BUFFER:
                text = self.read_text(call, index)
                return f"{value:#x}" if text is None else f"{value:#x} {quote(text)}"
            case Kind.TEXTS:
                texts = self.read_texts(call, index)
                return f"{value:#x}" if texts is None else f"{value:#x} {_quote_all(texts)}"
            case Kind.POINTER:
                return f"{value:#x}" if value else "NULL"


def quote(text: bytes) -> str:
    """The bytes as strace writes them: a C string of at most 32 characters; `...` stands for more.

    >>> print(quote(b"hi\\n"), quote(b"x" * 33), quote(b"\\x01\\x002"), quote(b""))
    "hi\\n" "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"... "\\1\\0002" ""
    """
    shown = text[:_LONGEST_TEXT].decode("latin-1")
    inner = "".join(_escape(letter, after) for letter, after in zip_longest(shown, shown[1:], fillvalue=""))
    return f'"{inner}"' + ("..." if len(text) > _LONGEST_TEXT else "")


def _quote_all(texts: list[bytes | int]) -> str:
    """As strace writes an array; an address stands for a text that could not be read.

    >>> print(_quote_all([b"echo", 0x1000]))
    ["echo", 0x1000]
    """
    shown = [f"{each:#x}" if isinstance(each, int) else quote(each) for each in texts[:_MOST_TEXTS]]
    return f"[{', '.join([*shown, '...'] if len(texts) > _MOST_TEXTS else shown)}]"


def _escape(letter: str, after: str) -> str:
    """In octal, with as few digits as `after`, the next letter, leaves clear."""
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    if " " <= letter <= "~":
        return letter
    return f"\\{ord(letter):03o}" if "0" <= after <= "9" else f"\\{ord(letter):o}"


def _narrow(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _number(value: int) -> str:
    return str(value) if value < _LARGEST_DECIMAL else f"{value:#x}"


def _flags(value: int, constants: Mapping[str, int], field_mask: int) -> str:
    """The constants that are set, unknown bits kept; first the name of the number in `field_mask`.

    >>> names = {"O_RDONLY": 0, "O_WRONLY": 1, "O_CREAT": 0x40}
    >>> [_flags(value, names, 3) for value in (0x41, 0x40, 0x42, 0x43)]
    ['O_WRONLY|O_CREAT', 'O_RDONLY|O_CREAT', 'O_CREAT|0x2', 'O_CREAT|0x3']
    """
    if not value:
        return next((name for name, bit in constants.items() if bit == 0), "0")
    fields = {bits: name for name, bits in constants.items() if bits == bits & field_mask}
    names = [fields[value & field_mask]] if field_mask and value & field_mask in fields else []
    rest = value & ~field_mask if names else value
    constants = {name: bits for name, bits in constants.items() if bits & ~field_mask}
    for name, bits in constants.items():
        if bits and rest & bits == bits:
            names.append(name)
            rest &= ~bits
    return "|".join([*names, f"{rest:#x}"] if rest or not names else names)
