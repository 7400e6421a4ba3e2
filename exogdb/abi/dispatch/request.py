"""What one `exo-syscall break` asks for, and its spelling as the name of a GDB probe location.

GDB's `save breakpoints` writes a breakpoint's location and nothing that a plugin knows about it, so everything
is in the location::

    -probe syscall:ipc_send
    -probe syscall:%ipc,!ipc_recv?cpu=1
    -probe syscall:read?on-return&if=$ret<0

`~` and two hexadecimal digits stand for a byte (of UTF-8) that a probe's name cannot hold. The condition comes
last, so that nothing in it has another meaning here.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from exogdb.errors import FormatError

__all__ = ["PROVIDER", "Request", "decode_location", "encode_location", "squeeze_expression"]

PROVIDER = "syscall"

_LOCATION = re.compile(rf"^-probe(?:-stap)?\s+{PROVIDER}:(?P<choice>[^?\s]+)(?:\?(?P<options>\S*))?$")
# Blanks end a location for GDB, a colon separates provider and name, the rest is this grammar's own.
_UNREADABLE = r"\s:~\x00-\x1f"
_RESERVED = re.compile(rf"[{_UNREADABLE}?&=]")
_RESERVED_IN_CONDITION = re.compile(rf"[{_UNREADABLE}]")
_OPTIONS = re.compile(r"(?P<plain>(?:(?!if=)[^&]*(?:&|$))*)(?:if=(?P<condition>.*))?")
# Beside a blank: what ends or begins an operand on one side, an operator on the other.
_NEEDLESS_BLANK = re.compile(r"(?<=[\w$)\]])\s+(?=[^\w\s$({])|(?<=[^\w\s$)\]}])\s+(?=[\w$(])")
# Variables, numbers, and operators that change nothing: `=` and what ends in it are not among them.
_ABOUT_THE_CALL = re.compile(
    r"(?:\$(?:nr|arg[1-6])\b|0[xX][0-9a-fA-F]+\b|\d+\b|==|!=|<=|>=|<<(?!=)|>>(?!=)|&&|\|\||[-+*/%&|^~!<>](?!=)|[()\s])+"
)


@dataclass(frozen=True)
class Request:
    """The calls (`choice`, in the grammar of `abi.choice`) and which hits of them stop the guest.

    `condition` is a GDB expression, empty for none. `cpu` and `process` are None for any. `on_return` stops when
    the call returns instead of when it starts.
    """

    choice: str
    condition: str = ""
    cpu: int | None = None
    process: int | None = None
    on_return: bool = False

    @cached_property
    def is_about_the_call(self) -> bool:
        """Whether the condition is over `$nr` and `$arg1` to `$arg6` alone: the same wherever the call is by then.

        >>> conditions = "$arg3 > 0x100", "$nr++ < 9", "$rdi == 1", "fd == 1"
        >>> [Request("read", each).is_about_the_call for each in conditions]
        [True, False, False, False]
        """
        return bool(_ABOUT_THE_CALL.fullmatch(self.condition)) and not re.search(r"\+\+|--", self.condition)

    @cached_property
    def arguments(self) -> frozenset[int]:
        """The arguments that the condition is over, `$arg1` as 0.

        >>> sorted(Request("read", "$arg3 > $arg1").arguments)
        [0, 2]
        """
        return frozenset(int(digit) - 1 for digit in re.findall(r"\$arg([1-6])\b", self.condition))

    @property
    def probe_name(self) -> str:
        """The part of the location after the provider."""
        options = [
            *(["on-return"] if self.on_return else []),
            *([f"cpu={self.cpu}"] if self.cpu is not None else []),
            *([f"process={self.process}"] if self.process is not None else []),
            *([f"if={_escape(self.condition, _RESERVED_IN_CONDITION)}"] if self.condition else []),
        ]
        return _escape(self.choice) + (f"?{'&'.join(options)}" if options else "")


def encode_location(request: Request) -> str:
    """The location that `break` takes.

    >>> encode_location(Request("ipc_send", condition="$arg1 == 3", cpu=1))
    '-probe syscall:ipc_send?cpu=1&if=$arg1~20==~203'
    """
    return f"-probe {PROVIDER}:{request.probe_name}"


def decode_location(location: str) -> Request | None:
    """The request in a location of this kind; None for any other location.

    >>> decode_location("-probe syscall:100-103?on-return")
    Request(choice='100-103', condition='', cpu=None, process=None, on_return=True)
    >>> decode_location("main.c:12") is None
    True

    :raise FormatError: the location is of this kind, but its options are not.
    """
    found = _LOCATION.match(location.strip())
    if found is None:
        return None
    parts = _OPTIONS.fullmatch(found["options"] or "")
    assert parts is not None  # the expression matches everything
    words = filter(None, parts["plain"].split("&"))
    options = {name: value for name, _, value in (word.partition("=") for word in words)}
    unknown = set(options) - {"on-return", "cpu", "process"}
    if unknown:
        raise FormatError(f"'{location}' has the unknown option {min(unknown)}")
    return Request(
        _unescape(found["choice"]),
        _unescape(parts["condition"] or ""),
        _to_int(location, options.get("cpu")),
        _to_int(location, options.get("process")),
        "on-return" in options,
    )


def _to_int(location: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal():
        raise FormatError(f"'{location}' has '{text}' where a number belongs")
    return int(text)


def squeeze_expression(expression: str) -> str:
    """A C or Rust expression without blanks that only please the eye; as it is, if it holds quotes.

    >>> squeeze_expression("$arg3 > 8 && ($nr & 1) == 1"), squeeze_expression("a - -b")
    ('$arg3>8&&($nr&1)==1', 'a- -b')
    """
    return expression if re.search("[\"']", expression) else _NEEDLESS_BLANK.sub("", expression.strip())


def _escape(text: str, reserved: re.Pattern[str] = _RESERVED) -> str:
    return reserved.sub(lambda found: "".join(f"~{byte:02x}" for byte in found[0].encode()), text)


def _unescape(text: str) -> str:
    return re.sub(
        r"(?:~[0-9a-fA-F]{2})+",
        lambda found: bytes.fromhex(found[0].replace("~", "")).decode("utf-8", "replace"),
        text,
    )
