"""The state of all devices and vCPUs, as QEMU writes it for `xen-save-devices-state`.

The command has nothing to do with Xen. With `live: false` it neither resumes the guest nor inactivates its block
devices. QEMU is handed a memfd, so that no file appears anywhere; over TCP no descriptor can be handed over, and
QEMU writes into a private directory that is removed again.
"""

import functools
import os

from exogdb.errors import UnavailableError
from exogdb.target.own_files import temporary_directory
from exogdb.target.qemu.conversation import Conversation, QmpError, RefusedError
from exogdb.target.qemu.qmp import ask_qmp

__all__ = ["read_device_state"]

# QEMU's words in `query-migrate` (migration/savevm.c, qemu_savevm_non_migratable_list).
_NOT_MIGRATABLE = "non-migratable device:"
_RANDOM_BYTES = 3  # a positive `int` in QEMU, in few digits: QEMU reads a command byte by byte, slowly


def read_device_state() -> bytes:
    """QEMU's migration stream without RAM (about 210 KB). Nothing in the guest changes.

    :raise MonitorError: as `exogdb.target.qemu.qmp.ask_qmp`.
    :raise UnavailableError: the machine has a device whose state QEMU cannot save.
    """
    return ask_qmp(_save_devices_state)


def _save_devices_state(monitor: Conversation) -> bytes:
    _require_migratable(monitor)
    return _state_file().save(monitor) if monitor.takes_descriptors else _save_to_file(monitor)


def _require_migratable(monitor: Conversation) -> None:
    """QEMU saves the state of every device, and crashes over one that has none to save (an NVMe drive, say).

    :raise UnavailableError: there is such a device.
    """
    migration = monitor.execute("query-migrate")
    if not isinstance(migration, dict):
        raise UnavailableError(f"QMP answers query-migrate with {migration!r:.40}, which is no object")
    for reason in migration.get("blocked-reasons", ()):
        if reason.startswith(_NOT_MIGRATABLE):
            device = reason.removeprefix(_NOT_MIGRATABLE).strip()
            raise UnavailableError(f"QEMU cannot save the state of the device {device}, and would crash")


def _save(monitor: Conversation, path: str) -> None:
    monitor.execute("xen-save-devices-state", {"filename": path, "live": False})


def _save_to_file(monitor: Conversation) -> bytes:
    with temporary_directory() as directory:
        path = directory / "state"
        path.touch(0o600)
        _save(monitor, str(path))
        return path.read_bytes()


class _StateFile:
    """An anonymous file for device states, and the set of descriptors in which QEMU has one of it.

    It is given to QEMU once: QEMU closes a descriptor that is taken back only while the guest runs
    (`monitor_fdset_cleanup`), so that one given with every question would use them up while the guest is stopped.
    The set's number is random, so that nobody else's set is taken for ours in another QEMU.
    """

    def __init__(self) -> None:
        self._read_fd = os.memfd_create("exogdb-device-state", os.MFD_CLOEXEC)
        # QEMU takes a descriptor out of a set only if its access mode is the one it wants, which is write-only.
        self._write_fd = os.open(f"/proc/self/fd/{self._read_fd}", os.O_WRONLY | os.O_CLOEXEC)
        self._label = f"exogdb device state, process {os.getpid()}"
        self._set: int | None = None

    def save(self, monitor: Conversation) -> bytes:
        """All that QEMU writes for one device state."""
        os.ftruncate(self._write_fd, 0)
        os.lseek(self._write_fd, 0, os.SEEK_SET)  # QEMU's descriptor shares this position
        if self._set is None:
            self._give(monitor)
        try:
            _save(monitor, f"/dev/fdset/{self._set}")
        except RefusedError:  # another QEMU, which was not given it
            if self._set in self._find_sets(monitor):
                raise
            self._give(monitor)
            _save(monitor, f"/dev/fdset/{self._set}")
        return os.pread(self._read_fd, os.fstat(self._read_fd).st_size, 0)

    def _give(self, monitor: Conversation) -> None:
        taken = self._find_sets(monitor)
        ours = [number for number, labels in taken.items() if self._label in labels]
        if ours:
            self._set = ours[0]
            return
        self._set = int.from_bytes(os.urandom(_RANDOM_BYTES), "big")
        monitor.execute("add-fd", {"fdset-id": self._set, "opaque": self._label}, self._write_fd)

    def _find_sets(self, monitor: Conversation) -> dict[int, set[str]]:
        sets = monitor.execute("query-fdsets")
        try:
            return {int(one["fdset-id"]): {fd.get("opaque", "") for fd in one["fds"]} for one in sets}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise QmpError(f"it answers query-fdsets with {sets!r:.40}") from error


@functools.cache
def _state_file() -> _StateFile:
    return _StateFile()
