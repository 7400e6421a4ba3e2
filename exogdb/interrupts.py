"""Holding Ctrl-C back for as long as something must not be left half done."""

import contextlib
import functools
import os
import signal
from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "finish",
    "held",
    "interrupts_held",
    "is_interrupt_pending",
    "no_signals",
    "press_ctrl_c_again",
    "take_ctrl_c",
    "undisturbed",
]

# GDB leaves what it is doing for any of them: for Ctrl-C, for `kill`, and when its terminal is closed.
_HELD = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_MOMENT_SECONDS = 0.01


@contextlib.contextmanager
def held(signals: Iterable[int]) -> Iterator[None]:
    """This thread gets none of `signals` inside the block; what came meanwhile arrives at its end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        # One that came just before this is raised by this very call, when the mask is set already.
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def interrupts_held() -> contextlib.AbstractContextManager[None]:
    """Ctrl-C pressed inside the block raises KeyboardInterrupt at its end; SIGTERM and SIGHUP end GDB then."""
    return held(_HELD)


def is_interrupt_pending() -> bool:
    """Whether one is held back just now."""
    return not _HELD.isdisjoint(signal.sigpending())


def finish(action: Callable[[], None]) -> None:
    """Do all of `action`, for a `finally`; Ctrl-C pressed before its end raises KeyboardInterrupt behind it.

    One that struck before it was held back lets `action` begin anew, so doing half of it twice must not matter.
    """
    is_done, interrupt = False, None
    while not is_done:
        try:
            with interrupts_held():
                action()
                is_done = True
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


def undisturbed(hook: Callable[..., None]) -> Callable[..., None]:
    """What GDB calls for an event: Ctrl-C waits for its end, and strikes a moment later.

    GDB drops what is left of a hook that Ctrl-C ends, and prints it as a Python exception.
    """

    @functools.wraps(hook)
    def call(*arguments: object) -> None:
        try:
            finish(lambda: hook(*arguments))
        except KeyboardInterrupt:
            press_ctrl_c_again()

    return call


def take_ctrl_c() -> bool:
    """Whether Ctrl-C has come while it is held; it is then gone."""
    return signal.sigtimedwait({signal.SIGINT}, 0) is not None


def press_ctrl_c_again() -> None:
    """Let a Ctrl-C that struck where it must not be passed on strike once more, a moment later."""
    from threading import Timer

    with no_signals():
        Timer(_MOMENT_SECONDS, os.kill, (os.getpid(), signal.SIGINT)).start()


def no_signals() -> contextlib.AbstractContextManager[None]:
    """A thread that is started inside the block leaves every signal to GDB's own thread."""
    return held(signal.valid_signals())
