"""exogdb/target/qemu/qmp.py: asking QEMU leaves nothing behind in it."""

from pathlib import Path

from tests.harness.session import Guest, open_guest

READ = "python from exogdb.target.qemu.device_state import read_device_state"
STATES = "python print(len({read_device_state()[:8] for _ in range(20)}), read_device_state()[:4])"


def _state_files(guest: Guest) -> int:
    descriptors = Path(f"/proc/{guest.qemu.process.pid}/fd").iterdir()
    return sum("exogdb-device-state" in str(descriptor.readlink()) for descriptor in descriptors)


def test_any_number_of_reads_leaves_one_descriptor() -> None:
    with open_guest() as guest:
        guest.gdb.run(READ)
        assert guest.gdb.run(STATES).split() == ["1", "b'QEVM'"]
        assert _state_files(guest) == 1


def test_a_state_is_whole_again_after_the_guest_ran() -> None:
    with open_guest() as guest:
        guest.gdb.run(READ)
        guest.gdb.run("python first = read_device_state()")
        guest.gdb.run("stepi")
        assert guest.gdb.run("python print(len(first) == len(read_device_state()))").strip() == "True"
