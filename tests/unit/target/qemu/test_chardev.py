"""exogdb/target/qemu/chardev.py against what QEMU 7.2 prints for `info chardev`."""

import pytest

from exogdb.errors import UsageError
from exogdb.target.qemu.address import QmpAddress, parse_address, to_address
from exogdb.target.qemu.chardev import (
    CharacterDevice,
    describe_monitors,
    free_monitors,
    parse_character_devices,
)

INFO_CHARDEV = """\
parallel0: filename=vc
gdb: filename=unix:/run/guest/gdb.sock,server=on
compat_monitor0: filename=disconnected:unix:/run/guest/with,comma.sock,server=on
compat_monitor1: filename=unix:/run/guest/taken.sock,server=on
compat_monitor2: filename=tcp:127.0.0.1:4471,server=on <-> 127.0.0.1:56928
compat_monitor3: filename=disconnected:telnet:127.0.0.1:4475,server=on
foo: filename=disconnected:tcp:0.0.0.0:4473,server=on
v6: filename=disconnected:tcp:::1:4476,server=on
qmp-client: filename=disconnected:unix:/run/manager.sock
qmp-old: filename=disconnected:unix:/run/old.sock,server
serial0: filename=disconnected:unix:/run/guest/serial.sock,server=on
serial1: filename=pty:/dev/pts/3
"""
DEVICES = parse_character_devices(INFO_CHARDEV)


def labels(devices: list[CharacterDevice]) -> list[str]:
    return [device.label for device in devices]


def test_every_socket_is_found_with_its_state() -> None:
    assert {device.label: device for device in DEVICES} == {
        device.label: device
        for device in (
            CharacterDevice("gdb", "unix", "/run/guest/gdb.sock", is_free=False),
            CharacterDevice("compat_monitor0", "unix", "/run/guest/with,comma.sock"),
            CharacterDevice("compat_monitor1", "unix", "/run/guest/taken.sock", is_free=False),
            CharacterDevice("compat_monitor2", "tcp", "127.0.0.1:4471", is_free=False, client="127.0.0.1:56928"),
            CharacterDevice("foo", "tcp", "0.0.0.0:4473"),
            CharacterDevice("v6", "tcp", "::1:4476"),
            CharacterDevice("qmp-client", "unix", "/run/manager.sock", is_server=False),
            CharacterDevice("qmp-old", "unix", "/run/old.sock"),
            CharacterDevice("serial0", "unix", "/run/guest/serial.sock"),
        )
    }


def test_only_free_monitors_of_qemus_own_are_tried() -> None:
    """Not a serial port, not what somebody uses, and not the socket of somebody whom QEMU calls."""
    assert labels(free_monitors(DEVICES)) == ["compat_monitor0", "qmp-old"]
    assert labels(free_monitors(DEVICES, {"foo", "v6"})) == ["foo", "v6", "compat_monitor0", "qmp-old"]


def test_the_others_are_explained() -> None:
    assert describe_monitors(DEVICES) == (
        "compat_monitor1 at /run/guest/taken.sock serves somebody else, "
        "compat_monitor2 at 127.0.0.1:4471 serves somebody else, "
        "qmp-client at /run/manager.sock is where QEMU connects to"
    )


def test_a_port_is_reached_by_loopback_only() -> None:
    addresses = {device.label: to_address(device) for device in DEVICES}
    assert addresses["compat_monitor0"] == QmpAddress(path="/run/guest/with,comma.sock")
    assert addresses["foo"] == QmpAddress(tcp=("127.0.0.1", 4473))
    assert addresses["v6"] == QmpAddress(tcp=("::1", 4476))
    assert to_address(CharacterDevice("qmp", "tcp", "192.168.1.5:4444")) is None


def test_what_the_user_names() -> None:
    assert parse_address("tcp:[::1]:4444").tcp == ("::1", 4444)
    assert parse_address(":4444").tcp == parse_address("localhost:4444").tcp == ("127.0.0.1", 4444)
    assert parse_address("unix:/run/a:1").path == "/run/a:1"
    assert parse_address("/run/a:1").path == "/run/a:1"
    with pytest.raises(UsageError, match="not on this machine"):
        parse_address("example.org:4444")
