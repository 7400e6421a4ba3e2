"""QEMU's human monitor, as the GDB stub forwards it, and the QMP monitors that it lists."""

import os

import gdb

from exogdb.errors import MonitorError, TargetLostError
from exogdb.target import settings
from exogdb.target.qemu.address import QmpAddress, parse_address, to_address
from exogdb.target.qemu.chardev import (
    describe_monitors,
    find_control_devices,
    free_monitors,
    parse_character_devices,
)
from exogdb.target.qemu.peer import find_qemu_arguments

__all__ = ["find_qmp_addresses", "is_client_of_guest", "run_monitor"]


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


def find_qmp_addresses() -> list[QmpAddress]:
    """Where to try, best first: `set exo qmp-socket`, `$EXOGDB_QMP`, then the monitors that QEMU lists as free.

    :raise MonitorError: nothing was named, and QEMU's monitor could not be asked or lists none that can be used.
    :raise UsageError: what was named is not on this machine.
    """
    named = settings.qmp_socket() or os.environ.get("EXOGDB_QMP")
    if named:
        return [parse_address(named)]
    devices = parse_character_devices(run_monitor("info chardev"))
    is_all_known = len(free_monitors(devices)) == sum(device.can_be_taken for device in devices)
    free = free_monitors(devices, () if is_all_known else find_control_devices(find_qemu_arguments() or ()))
    addresses = [address for device in free if (address := to_address(device)) is not None]
    if addresses:
        return addresses
    elsewhere = [f"{device.label} at {device.address} is on no loopback address" for device in free]
    problems = ", ".join([*elsewhere, *filter(None, [describe_monitors(devices)])])
    raise MonitorError(
        "QEMU has no free QMP socket: start it with `-qmp unix:PATH,server=on,wait=off`"
        + (f" ({problems})" if problems else "")
    )


def is_client_of_guest(client: tuple[str, int]) -> bool:
    """Whether the QEMU behind the GDB stub has a TCP connection whose other end is `client`, an address and port.

    :raise MonitorError: QEMU's monitor could not be asked.
    """
    wanted = {f"{client[0]}:{client[1]}", f"[{client[0]}]:{client[1]}"}
    return any(device.client in wanted for device in parse_character_devices(run_monitor("info chardev")))
