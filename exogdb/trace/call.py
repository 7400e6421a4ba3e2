"""One system call, from its entry to its return."""

from dataclasses import dataclass
from enum import Enum

__all__ = ["Call", "CallState", "Parent", "is_error"]

_FIRST_ERROR = (1 << 64) - 4095


class CallState(Enum):
    """How far a call has come."""

    IN_PROGRESS = "in progress"
    RETURNED = "returned"
    NEVER_RETURNED = "never returned"
    ENTERED_BEFORE = "entered before the trace"
    STARTED_BY_FORK = "started by fork"


@dataclass(frozen=True, slots=True)
class Parent:
    """The process, by its number in the trace, that made another by a fork; `is_guess` if nothing proves it."""

    process: int
    is_guess: bool


@dataclass(slots=True)
class Call:
    """`sequence` counts entries from 1 in the order seen; 0 for a return whose entry was not seen.

    `process` counts processes from 1 in the order seen (`exogdb.trace.lineage`).
    `space` is the address space at the entry, `return_space` at the return (exec changes it). `number`,
    `arguments`, `user_rip` and `user_rsp` are None where the entry was not seen. `is_ambiguous`: more than one
    open call fitted the return, and this one is the likeliest. `parent` is whose child the process is, as far as
    that is known. Times are nanoseconds on the engine's clock.
    """

    sequence: int
    cpu: int | None
    space: int
    process: int
    number: int | None = None
    arguments: tuple[int, ...] | None = None
    user_rip: int | None = None
    user_rsp: int | None = None
    entry_ns: int | None = None
    state: CallState = CallState.IN_PROGRESS
    result: int | None = None
    exit_ns: int | None = None
    return_cpu: int | None = None
    return_space: int | None = None
    kernel_stack: int | None = None
    is_ambiguous: bool = False
    parent: Parent | None = None

    @property
    def latency_ns(self) -> int | None:
        """Nanoseconds from entry to return on the engine's clock, if both are known."""
        if self.entry_ns is None or self.exit_ns is None:
            return None
        return self.exit_ns - self.entry_ns

    @property
    def failed(self) -> bool:
        """Whether the result is an error."""
        return self.result is not None and is_error(self.result)


def is_error(result: int) -> bool:
    """Whether an unsigned 64-bit result lies in -4095..-1, where errors are returned.

    >>> is_error(0xffff_ffff_ffff_fff2), is_error(0x7000)
    (True, False)
    """
    return result >= _FIRST_ERROR
