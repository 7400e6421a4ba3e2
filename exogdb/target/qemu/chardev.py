"""QEMU's list of character devices: how a QMP monitor is found without being told. Pure.

`info chardev` prints one line for each device::

    compat_monitor0: filename=disconnected:unix:/run/qmp.sock,server=on
    compat_monitor1: filename=tcp:127.0.0.1:4444,server=on <-> 127.0.0.1:56928
    serial0: filename=pty:/dev/pts/3

A monitor serves one client at a time, so only a line with `disconnected:` can be taken, and only one with `server`
is QEMU's own socket. Nothing but a monitor may be tried: the guest notices a connection to a virtio port.
What `-qmp` and `-monitor` make is `compat_monitorN`; which of them speaks QMP, the greeting tells.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = [
    "CharacterDevice",
    "describe_monitors",
    "find_control_devices",
    "free_monitors",
    "parse_character_devices",
]

_LINE = re.compile(
    r"^(?P<label>[^:]+): filename=(?P<free>disconnected:)?(?P<transport>unix|tcp):(?P<address>.+?)"
    r"(?P<server>,server(?:=on)?)?(?: <-> (?P<client>\S+))?$"
)
_MONITOR = re.compile(r"^compat_monitor\d+$|qmp|monitor|(?:^|[\W_])mon\d*$")


@dataclass(frozen=True)
class CharacterDevice:
    """One socket of QEMU. `address` is a path (`unix`) or HOST:PORT (`tcp`).

    `is_free`: nobody is connected to it; `is_server`: QEMU listens there; `client`: HOST:PORT at the other end
    of a TCP connection.
    """

    label: str
    transport: str
    address: str
    is_free: bool = True
    is_server: bool = True
    client: str = ""

    @property
    def can_be_taken(self) -> bool:
        """Whether somebody can connect to it now."""
        return self.is_free and self.is_server


def parse_character_devices(text: str) -> list[CharacterDevice]:
    """The sockets in the answer to `info chardev`, in QEMU's order."""
    matches = (_LINE.match(line.strip()) for line in text.splitlines())
    return [
        CharacterDevice(
            match["label"],
            match["transport"],
            match["address"],
            match["free"] is not None,
            match["server"] is not None,
            match["client"] or "",
        )
        for match in matches
        if match is not None
    ]


def free_monitors(devices: Sequence[CharacterDevice], control: Collection[str] = ()) -> list[CharacterDevice]:
    """What can be connected to and is a monitor: by its label, or because `control` has it. Best first."""
    monitors = [
        device
        for device in devices
        if device.can_be_taken and (device.label in control or _MONITOR.search(device.label))
    ]
    return sorted(monitors, key=lambda device: (device.label not in control, device.transport != "unix"))


def describe_monitors(devices: Sequence[CharacterDevice]) -> str:
    """The monitors that cannot be connected to, and why; empty if there are none.

    >>> describe_monitors([CharacterDevice("compat_monitor0", "unix", "/run/qmp.sock", is_free=False)])
    'compat_monitor0 at /run/qmp.sock serves somebody else'
    """
    return ", ".join(
        f"{device.label} at {device.address} "
        + ("serves somebody else" if device.is_server else "is where QEMU connects to")
        for device in devices
        if _MONITOR.search(device.label) and not device.can_be_taken
    )


def find_control_devices(arguments: Sequence[str]) -> frozenset[str]:
    """Labels of the character devices that QEMU's command line makes QMP monitors of.

    >>> sorted(find_control_devices(["-mon", "chardev=a,mode=control", "--mon", "b,mode=control,pretty=on"]))
    ['a', 'b']
    >>> find_control_devices(["-mon", "chardev=a,mode=readline"])
    frozenset()
    """
    found = set()
    for option, value in pairwise(arguments):
        fields = value.split(",")
        if option in ("-mon", "--mon") and "mode=control" in fields:
            first = [] if "=" in fields[0] else [fields[0]]
            found |= {*first, *(field[8:] for field in fields if field.startswith("chardev="))}
    return frozenset(found)
