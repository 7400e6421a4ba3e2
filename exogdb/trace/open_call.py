"""A system call in progress, with what its return is recognised by."""

from dataclasses import dataclass

from exogdb.trace.call import Call, CallState
from exogdb.trace.event import Entry, Return

__all__ = ["OpenCall", "begin", "complete"]

_PAGE_SIZE = 4096


@dataclass(slots=True)
class OpenCall:
    """`thread` is address space and FS base at the entry, `forks_before` how many forks had returned by then.

    `handler_rsp` is rsp where the call's handler began, if that has been seen, `child` the process that a fork has
    made. `is_mixed_up`: it is a fork whose child may be that of another fork by the same process.
    """

    call: Call
    thread: tuple[int, int]
    preserved: object
    kernel_stack_top: int | None
    forks_before: int = 0
    is_announced: bool = False
    handler_rsp: int | None = None
    child: int | None = None
    is_mixed_up: bool = False

    def is_on(self, kernel_stack: int) -> bool:
        """Whether a dispatcher that returns with rsp `kernel_stack` has called the handler that was seen.

        It is not a page deeper, and no two kernel stacks lie closer.
        """
        return self.handler_rsp is not None and 0 < kernel_stack - self.handler_rsp < _PAGE_SIZE

    def is_elsewhere(self, event: Return) -> bool:
        """Whether `event` is known to be on another kernel stack than the one that the call was seen on."""
        if self.handler_rsp is not None and event.kernel_stack is not None:
            return not self.is_on(event.kernel_stack)
        tops = self.kernel_stack_top, event.kernel_stack_top
        return None not in tops and tops[0] != tops[1]

    def is_entered_by(self, entry: Entry) -> bool:
        """Whether `entry` shows all that the call's own showed, but for the CPU."""
        call = self.call
        return (self.thread, self.preserved, call.number, call.arguments, call.user_rip, call.user_rsp) == (
            (entry.space, entry.fs_base),
            entry.preserved,
            entry.number,
            entry.arguments,
            entry.user_rip,
            entry.user_rsp,
        )


def begin(entry: Entry, sequence: int, process: int) -> Call:
    """The call that begins with `entry`."""
    what = (entry.number, entry.arguments, entry.user_rip, entry.user_rsp, entry.time_ns)
    return Call(sequence, entry.cpu, entry.space, process, *what)


def complete(call: Call, event: Return) -> None:
    """`call` has returned with `event`."""
    call.state = CallState.RETURNED
    call.result = event.result
    call.exit_ns = event.time_ns
    call.return_cpu = event.cpu
    call.return_space = event.space
    call.kernel_stack = event.kernel_stack
