"""Where a QMP monitor listens: a unix socket, or a TCP port of this machine. Pure."""

import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address

from exogdb.errors import UsageError
from exogdb.target.qemu.chardev import CharacterDevice

__all__ = ["QmpAddress", "parse_address", "to_address"]

_TCP = re.compile(r"^(?:tcp:)?(?P<host>[\w.-]*|\[?[0-9a-fA-F:]+\]?):(?P<port>\d{1,5})$")
_HERE = {"": "127.0.0.1", "localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class QmpAddress:
    """`path` of a unix socket, or a loopback address and port in `tcp`; `is_named`: the user gave it."""

    path: str = ""
    tcp: tuple[str, int] | None = None
    is_named: bool = False

    @property
    def family(self) -> int:
        """The address family that `socket.socket` wants."""
        if self.tcp is None:
            return socket.AF_UNIX
        return socket.AF_INET6 if ":" in self.tcp[0] else socket.AF_INET

    def __str__(self) -> str:
        return self.path if self.tcp is None else f"{self.tcp[0]}:{self.tcp[1]}"


def parse_address(text: str) -> QmpAddress:
    """What the user named: a path, or `HOST:PORT` with or without `tcp:`; `unix:PATH` is a path, too.

    :raise UsageError: the host is not this machine.

    >>> parse_address("localhost:4444").tcp, parse_address("/run/qmp.sock").path
    (('127.0.0.1', 4444), '/run/qmp.sock')
    """
    found = _TCP.match(text)
    if found is None:
        return QmpAddress(path=text.removeprefix("unix:"), is_named=True)
    host = _loopback(found["host"])
    if host is None:
        raise UsageError(
            f"QMP at {text} is not on this machine: a loopback address is needed, because QEMU hands over a file"
        )
    return QmpAddress(tcp=(host, int(found["port"])), is_named=True)


def to_address(device: CharacterDevice) -> QmpAddress | None:
    """Where to connect to for `device`; None if it does not listen on a loopback address or on all of them."""
    if device.transport == "unix":
        return QmpAddress(path=device.address)
    found = _TCP.match(device.address)
    host = _loopback(found["host"]) if found is not None else None
    return None if found is None or host is None else QmpAddress(tcp=(host, int(found["port"])))


def _loopback(host: str) -> str | None:
    """The numeric loopback address that reaches `host`; None if it is no name or address of this machine's own."""
    host = host.strip("[]")
    if host in _HERE:
        return _HERE[host]
    try:
        return host if ip_address(host).is_loopback else None
    except ValueError:
        return None
