"""Registers of one CPU, as QEMU's GDB stub gives them.

Reading never resumes the guest and changes nothing in it. The names are GDB's: `rip`, `eflags`, `cs`, `fs_base`,
`k_gs_base`, `efer`, `cr3`.
"""

from collections.abc import Callable, Iterable, Iterator

import gdb

from exogdb.errors import TargetLostError, UnavailableError
from exogdb.reading import Reading, Value, note
from exogdb.target.connection import is_broken
from exogdb.target.cpus import Cpu, cpu_selected, is_reading_registers
from exogdb.x86.word import MASK_64, to_signed

__all__ = ["read_cpl", "read_register", "read_registers", "register_value", "write_register"]


def read_register(cpu: Cpu, name: str) -> int:
    """The value of register `name` on `cpu`, unsigned. The guest must be stopped.

    :raise UnavailableError: the stub does not have that register, or the frame cannot be read.
    :raise TargetLostError: the connection broke.
    """
    with cpu_selected(cpu):
        return _read(cpu, name, _find_reader(cpu, name))


def read_registers(cpu: Cpu, names: Iterable[str]) -> dict[str, Value]:
    """Each of `names` with source `gdb`, or the reason why it is unavailable. The guest must be stopped.

    :raise TargetLostError: the connection broke.
    """
    with cpu_selected(cpu):
        return dict(_read_each(cpu, names))


def register_value(cpu: Cpu, name: str) -> Value:
    """The same for one register."""
    return read_registers(cpu, [name])[name]


def write_register(cpu: Cpu, name: str, value: int) -> None:
    """Set a register of `cpu` through the stub. This changes the guest; the guest must be stopped.

    :raise UnavailableError: the stub refused.
    :raise TargetLostError: the connection broke.
    """
    with cpu_selected(cpu):
        try:
            _find_out_whether_the_connection_broke()
            gdb.newest_frame().select()
            gdb.parse_and_eval(f"${name} = {to_signed(value)}")
        except gdb.error as error:
            raise _to_unavailable(error, f"register {name} of CPU {cpu.index}") from error


def _find_out_whether_the_connection_broke() -> None:
    """By a packet without an effect. GDB that finds out while it writes a register uses freed memory and ends.

    :raise gdb.error: it broke.
    """
    connection = gdb.selected_inferior().connection
    if isinstance(connection, gdb.RemoteTargetConnection):
        connection.send_packet("qC")


def read_cpl(cpu: Cpu) -> int:
    """Current privilege level, 0 to 3: the low two bits of CS (Intel SDM Vol. 3A, Privilege Levels)."""
    return read_register(cpu, "cs") & 3


_Reader = Callable[[str], gdb.Value]


def _read_each(cpu: Cpu, names: Iterable[str]) -> Iterator[tuple[str, Value]]:
    read: _Reader | None = None
    for name in names:
        try:
            read = read or _find_reader(cpu, name)
            yield name, Reading(_read(cpu, name, read), "gdb")
        except UnavailableError as error:
            yield name, note(error)


def _find_reader(cpu: Cpu, wanted: str) -> _Reader:
    """What gives registers of the selected CPU itself, whatever frame is selected.

    It raises ValueError where there is no such register.
    """
    if is_reading_registers():
        # The innermost frame is selected. Asking for it as an object would cost ten times as much: to name it, GDB
        # unwinds to its caller.
        return _read_by_name
    try:
        return gdb.newest_frame().read_register
    except gdb.error as error:
        raise _to_unavailable(error, f"register {wanted} of CPU {cpu.index}") from error


def _read_by_name(name: str) -> gdb.Value:
    """`$name`, which may also be a variable of the user's."""
    if gdb.selected_inferior().architecture().registers().find(name) is None:
        raise ValueError(name)
    return gdb.parse_and_eval(f"${name}")


def _read(cpu: Cpu, name: str, read: _Reader) -> int:
    try:
        return int(read(name)) & MASK_64
    except ValueError as error:
        raise UnavailableError(f"QEMU's GDB stub has no register {name}") from error
    except gdb.error as error:
        raise _to_unavailable(error, f"register {name} of CPU {cpu.index}") from error


def _to_unavailable(error: gdb.error, what: str) -> UnavailableError:
    if is_broken(error):
        return TargetLostError(f"the connection to QEMU broke while reading {what}")
    return UnavailableError(f"{what}: {error}")
