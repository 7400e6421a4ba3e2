"""A real SIGINT at every moment of holding it back."""

import _thread
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from types import FrameType
from typing import Any

import pytest

from exogdb.interrupts import finish, held, interrupts_held, is_interrupt_pending, undisturbed


def press() -> None:
    signal.raise_signal(signal.SIGINT)


class PressAt:
    """Presses Ctrl-C before the n-th instruction of `function`, counted from 0; a context manager."""

    def __init__(self, function: Any, moment: int, press: Callable[[], None] = press) -> None:
        self._code = getattr(function, "__wrapped__", function).__code__
        self._left = moment
        self._press = press
        self.is_pressed = False

    def __enter__(self) -> "PressAt":
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code is not self._code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not self.is_pressed:
            self._left -= 1
            if self._left < 0:
                self.is_pressed = True
                self._press()
        return self._trace


def mask() -> set[int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def test_pressed_inside_it_is_raised_at_the_end() -> None:
    before, pending = mask(), []
    with pytest.raises(KeyboardInterrupt):
        with_ctrl_c_inside(lambda: pending.append(is_interrupt_pending()))
    assert pending == [True]
    assert mask() == before


def with_ctrl_c_inside(then: Callable[[], None]) -> None:
    with interrupts_held():
        press()
        then()


def test_whenever_it_is_pressed_nothing_stays_held() -> None:
    before, raised = mask(), 0
    for moment in count():
        with PressAt(held, moment) as press:
            try:
                with held({signal.SIGINT}):
                    pass
            except KeyboardInterrupt:
                raised += 1
        assert mask() == before, moment
        assert raised == moment + press.is_pressed, moment
        if not press.is_pressed:
            break
    assert raised > 20


def test_one_that_came_before_it_was_held_leaves_nothing_held() -> None:
    """Python raises it in whatever it calls next: in setting the mask, too, which is then set."""
    before = mask()
    for moment in count():
        block = held({signal.SIGINT})
        with PressAt(held, moment, _thread.interrupt_main) as press:
            try:
                block.__enter__()
            except KeyboardInterrupt:
                assert mask() == before, moment
            else:
                break
    block.__exit__(None, None, None)
    assert not press.is_pressed
    assert moment > 10


def test_whenever_it_is_pressed_all_is_done() -> None:
    missed = []
    for moment in count():
        done: list[int] = []
        with PressAt(finish, moment) as press, suppress(KeyboardInterrupt):
            finish(partial(done.append, moment))
        if not press.is_pressed:
            break
        if not done:
            missed.append(moment)
    assert moment > 20
    assert missed == list(range(len(missed))), "only before its first `try`"
    assert len(missed) < 10


def test_what_an_event_calls_is_done_before_ctrl_c_strikes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr("exogdb.interrupts.press_ctrl_c_again", lambda: order.append("Ctrl-C"))

    @undisturbed
    def hook(event: str) -> None:
        press()
        order.append(event)

    hook("stop")
    assert order == ["stop", "Ctrl-C"]
