"""QEMU's list of character devices: how a QMP socket is found without being told. Pure.

`info chardev` prints one line for each device::

    compat_monitor0: filename=disconnected:unix:/run/qmp.sock,server=on
    gdb: filename=unix:/run/gdb.sock,server=on

A monitor serves one client at a time, so only a line with `disconnected:` can be taken. The list also holds
sockets that are no QMP monitor (the GDB stub's own, serial ports): the greeting tells them apart.
"""

import re
from dataclasses import dataclass

__all__ = ["CharacterDevice", "free_sockets", "parse_character_devices"]

_LINE = re.compile(r"^(?P<label>[^:]+): filename=(?P<free>disconnected:)?unix:(?P<path>.+?)(?:,server=\w+)?$")


@dataclass(frozen=True)
class CharacterDevice:
    """One unix socket: QEMU's label for it, its path, and whether nobody is connected to it."""

    label: str
    path: str
    is_free: bool


def parse_character_devices(text: str) -> list[CharacterDevice]:
    """The unix sockets in the answer to `info chardev`, in QEMU's order."""
    matches = (_LINE.match(line.strip()) for line in text.splitlines())
    return [
        CharacterDevice(match["label"], match["path"], match["free"] is not None)
        for match in matches
        if match is not None
    ]


def free_sockets(text: str) -> list[str]:
    """Paths of sockets that can be connected to, best first: QEMU labels what `-qmp` made `compat_monitorN`.

    >>> free_sockets("qmp0: filename=disconnected:unix:/run/qmp.sock,server=on")
    ['/run/qmp.sock']
    """
    free = [device for device in parse_character_devices(text) if device.is_free]
    return [device.path for device in sorted(free, key=lambda d: not re.search("monitor|qmp|mon", d.label))]
