"""exogdb/target/qemu/chardev.py against what QEMU 7.2 prints for `info chardev`."""

from exogdb.target.qemu.chardev import CharacterDevice, free_sockets, parse_character_devices

INFO_CHARDEV = """\
parallel0: filename=vc
gdb: filename=unix:/run/guest/gdb.sock,server=on
compat_monitor0: filename=disconnected:unix:/run/guest/qmp.sock,server=on
compat_monitor1: filename=unix:/run/guest/taken.sock,server=on
serial0: filename=disconnected:unix:/run/guest/with,comma.sock,server=on
serial1: filename=pty:/dev/pts/3
"""


def test_every_unix_socket_is_found_with_its_state() -> None:
    assert parse_character_devices(INFO_CHARDEV) == [
        CharacterDevice("gdb", "/run/guest/gdb.sock", False),
        CharacterDevice("compat_monitor0", "/run/guest/qmp.sock", True),
        CharacterDevice("compat_monitor1", "/run/guest/taken.sock", False),
        CharacterDevice("serial0", "/run/guest/with,comma.sock", True),
    ]


def test_a_monitor_is_tried_before_a_serial_port_and_a_taken_one_never() -> None:
    assert free_sockets(INFO_CHARDEV) == ["/run/guest/qmp.sock", "/run/guest/with,comma.sock"]
