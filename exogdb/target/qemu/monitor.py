"""QEMU's human monitor, as the GDB stub forwards it, and the QMP monitors that it lists."""

import os

import gdb

from exogdb.errors import MonitorError, TargetLostError
from exogdb.target import settings
from exogdb.target.connection import is_broken
from exogdb.target.qemu.address import QmpAddress, parse_address, to_address
from exogdb.target.qemu.chardev import (
    describe_monitors,
    find_control_devices,
    free_monitors,
    parse_character_devices,
)
from exogdb.target.qemu.peer import find_qemu_arguments

__all__ = ["find_qmp_addresses", "has_monitor", "is_asking", "is_client_of_guest", "run_monitor"]

# By the number that GDB gives to each connection, never to two.
_has_monitor: dict[int, bool] = {}
_is_asking = False


def is_asking() -> bool:
    """Whether it is exogdb that runs a `monitor` command just now."""
    return _is_asking


def has_monitor() -> bool:
    """Whether the target is QEMU's stub for a whole machine, which forwards monitor commands. Changes nothing.

    It is asked once for each connection, by a packet that is none for other stubs: a `monitor` command that the
    target refuses must not be tried while GDB decides about a stop (`target.gdb_command`).

    :raise TargetLostError: the connection broke.
    """
    connection = gdb.selected_inferior().connection
    if not isinstance(connection, gdb.RemoteTargetConnection):
        return False
    if connection.num not in _has_monitor:
        try:
            answer = connection.send_packet("qqemu.PhyMemMode")
        except gdb.error as error:
            raise TargetLostError("the connection broke while the target was asked what it is") from error
        _has_monitor[connection.num] = answer in (b"0", b"1")
    return _has_monitor[connection.num]


def run_monitor(command: str) -> str:
    """What QEMU's human monitor answers to `command`. Works while the guest is stopped.

    :raise MonitorError: the target does not forward monitor commands.
    :raise TargetLostError: the connection broke.
    """
    if not has_monitor():
        raise MonitorError(f"the target does not answer `monitor {command}`: it is not QEMU's stub")
    global _is_asking
    _is_asking = True
    try:
        return gdb.execute(f"monitor {command}", to_string=True)
    except UnicodeDecodeError as error:  # the name of a file; QEMU 7.2 also shows freed memory as one
        return bytes(error.object).decode(error.encoding, "replace")
    except gdb.error as error:
        if is_broken(error):
            raise TargetLostError("the connection to QEMU broke while asking its monitor") from error
        raise MonitorError(f"the target does not answer `monitor {command}`: {error}") from error
    finally:
        _is_asking = False


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
