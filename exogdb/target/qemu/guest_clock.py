"""The guest's own clock: how long it has run, as its timers see it, or how many instructions with `-icount`.

It is in QEMU's device state, exact while the guest stands still, and costs what that costs: some milliseconds.
"""

from dataclasses import dataclass

from exogdb.errors import FormatError, UnavailableError
from exogdb.target.qemu.device_state import read_device_state
from exogdb.target.qemu.vmstate import for_each_section
from exogdb.target.qemu.vmstate_timer import TimerState, decode_timer

__all__ = ["GuestClock", "open_guest_clock"]


@dataclass(frozen=True)
class GuestClock:
    """Counts instructions, or nanoseconds."""

    counts_instructions: bool

    @property
    def words(self) -> str:
        """What its times mean."""
        if self.counts_instructions:
            return "instructions that all CPUs have executed, counted by QEMU's -icount"
        return "the guest's clock, read at each stop; each adds the 0.3 ms in which it takes effect"

    def read(self) -> int:
        """The guest must be stopped; nothing in it changes.

        :raise MonitorError: QMP cannot be asked. :raise UnavailableError: the state cannot be had.
        """
        state = _read_timer()
        return state.instructions if state.instructions is not None else state.clock_ns


def open_guest_clock() -> GuestClock:
    """The clock of the stopped guest behind the selected connection.

    :raise MonitorError: QMP cannot be asked. :raise UnavailableError: the state cannot be had.
    """
    return GuestClock(_read_timer().instructions is not None)


def _read_timer() -> TimerState:
    try:
        timers = [each for each in for_each_section(read_device_state()) if each.name == "timer"]
        if len(timers) != 1:
            raise FormatError(f"QEMU's device state has {len(timers)} timer sections")
        return decode_timer(timers[0].body, timers[0].version_id)
    except FormatError as error:
        raise UnavailableError(f"the guest's clock cannot be read: {error}") from error
