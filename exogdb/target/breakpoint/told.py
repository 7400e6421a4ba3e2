"""Calls that have read the table entry of their number, and are on the way to their place."""

from collections.abc import Collection

from exogdb.abi.dispatch.place import Place
from exogdb.abi.frame_base import find_call_slot
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.errors import TargetLostError, UnavailableError
from exogdb.target.breakpoint.hit import StopRegisters, find_slot
from exogdb.target.cpus import Cpu
from exogdb.target.memory import VirtualMemory

__all__ = ["ToldCalls"]


class ToldCalls:
    """The number that each of them has told, by the stack slot that it returns through.

    Not by CPU: an interrupt may take the CPU away from it, and another process make the same call there. That is
    only the last resort, where the stack does not tell the slot.
    """

    def __init__(self) -> None:
        self._numbers: dict[int | Cpu, int] = {}

    @property
    def numbers(self) -> Collection[int]:
        """Those of all the calls."""
        return self._numbers.values()

    def add(self, cpu: Cpu, registers: StopRegisters, path: EntryPath, number: int) -> None:
        """The call of `cpu`, which is in the dispatcher, has told `number`."""
        slot = _find_slot_or_none(cpu, registers, path)
        self._numbers[cpu if slot is None else slot] = number

    def take(self, cpu: Cpu, registers: StopRegisters, place: Place, path: EntryPath) -> bool:
        """Whether the call of `cpu`, standing at `place`, has told its number; it is forgotten then."""
        for key in (find_slot(cpu, registers, place, path), cpu):
            if key is not None and self._numbers.get(key) == place.number:
                del self._numbers[key]
                return True
        return False

    def clear(self) -> None:
        """Forget all of them."""
        self._numbers.clear()


def _find_slot_or_none(cpu: Cpu, registers: StopRegisters, path: EntryPath) -> int | None:
    try:
        return find_call_slot(path, registers["rsp"], registers["gs_base"], VirtualMemory(cpu))
    except TargetLostError:
        raise
    except UnavailableError:
        return None
