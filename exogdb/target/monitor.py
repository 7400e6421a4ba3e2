"""QEMU's human monitor, as the GDB stub forwards it, and the QMP sockets that it lists.

`monitor info chardev` is how a QMP socket is found without being told: QEMU prints one line for each character
device, such as `compat_monitor0: filename=disconnected:unix:/run/qmp.sock,server=on`. A monitor serves one
client at a time, so only a line with `disconnected:` can be taken. The list also holds sockets that are no QMP
monitor (the stub's own, serial ports): the greeting tells them apart.
"""

import os
import re
from dataclasses import dataclass

import gdb

from exogdb.errors import MonitorError, TargetLostError
from exogdb.target import settings

__all__ = ["CharacterDevice", "find_qmp_sockets", "parse_character_devices", "run_monitor"]

_CHARDEV_LINE = re.compile(
    r"^(?P<label>[^:]+): filename=(?P<free>disconnected:)?(?:unix:(?P<path>[^,]+)|(?P<other>\S*))"
)


@dataclass(frozen=True)
class CharacterDevice:
    """One line of `info chardev`: its label, its unix socket path, and whether nobody is connected to it."""

    label: str
    path: str
    is_free: bool


def run_monitor(command: str) -> str:
    """What QEMU's human monitor answers to `command`. Works while the guest is stopped.

    :raise MonitorError: the target does not forward monitor commands.
    :raise TargetLostError: the connection broke.
    """
    try:
        return gdb.execute(f"monitor {command}", to_string=True)
    except gdb.error as error:
        if "Remote connection closed" in str(error):
            raise TargetLostError("the connection to QEMU broke while asking its monitor") from error
        raise MonitorError(f"the target does not answer `monitor {command}`: {error}") from error


def parse_character_devices(text: str) -> list[CharacterDevice]:
    """The unix sockets in the answer to `info chardev`, in QEMU's order."""
    matches = (_CHARDEV_LINE.match(line.strip()) for line in text.splitlines())
    return [
        CharacterDevice(match["label"], match["path"], match["free"] is not None)
        for match in matches
        if match is not None and match["path"]
    ]


def find_qmp_sockets() -> list[str]:
    """Paths worth trying, best first: `set exo qmp-socket`, `$EXOGDB_QMP`, then what QEMU lists as free.

    :raise MonitorError: nothing was named, and QEMU's monitor could not be asked.
    """
    named = settings.qmp_socket() or os.environ.get("EXOGDB_QMP")
    if named:
        return [named]
    devices = parse_character_devices(run_monitor("info chardev"))
    free = [device for device in devices if device.is_free]
    # QEMU labels what `-qmp` made `compat_monitorN`; those first.
    return [device.path for device in sorted(free, key=lambda d: "monitor" not in d.label)]
