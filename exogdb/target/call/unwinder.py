"""The unwinder that GDB knows from the start; `stub_frames` does the work once a system-call path was analysed."""

import gdb
import gdb.unwinder

from exogdb.interrupts import finish, press_ctrl_c_again
from exogdb.target.analysed import analysed_paths
from exogdb.target.connection import is_connection_lost

__all__ = ["StubUnwinder"]


class StubUnwinder(gdb.unwinder.Unwinder):
    """Makes backtraces cross from the kernel into the user program."""

    def __init__(self) -> None:
        super().__init__("exo-syscall")

    def __call__(self, pending_frame: gdb.PendingFrame) -> gdb.UnwindInfo | None:
        """Called by GDB for every frame that it meets; None means that this one is not ours."""
        if not analysed_paths():
            return None
        answers: list[gdb.UnwindInfo | None] = []
        is_pressed = False
        while not answers:
            try:
                finish(lambda: answers.append(_answer(pending_frame)))
            except KeyboardInterrupt:
                is_pressed = True
        if is_pressed:
            press_ctrl_c_again()  # passed on from here, it would leave GDB with half a frame
        if is_connection_lost():
            # GDB has no frames any more: with an answer, or any other exception, which it prints, it would go on
            # with one that it has freed, and end by SIGSEGV.
            raise KeyboardInterrupt
        return answers[-1]


def _answer(pending_frame: gdb.PendingFrame) -> gdb.UnwindInfo | None:
    from exogdb.target.call.stub_frames import unwind

    try:
        return unwind(pending_frame)
    except (gdb.error, ValueError):
        return None  # a frame without these registers is none of ours: another architecture, or lost values
