"""The call whose return a breakpoint has just stopped at: known since its entry, kept by nothing in the guest."""

from dataclasses import dataclass

import gdb

__all__ = ["find_returned", "remember_returned", "watch_resumes"]


@dataclass(frozen=True)
class _Returned:
    """`rsp` is the stack pointer right behind the dispatcher's return, on the call's own kernel stack."""

    rsp: int
    number: int


_returned: list[_Returned] = []


def remember_returned(return_slot: int, number: int) -> None:
    """The call `number` has returned through the stack slot at `return_slot`, and the guest has stopped there."""
    _returned.append(_Returned(return_slot + 8, number))


def find_returned(rsp: int) -> int | None:
    """The number of the call that returned to `rsp`; None if no stop told. Forgotten when the guest resumes."""
    return next((each.number for each in _returned if each.rsp == rsp), None)


def watch_resumes() -> None:
    """Forget at every resume: the next call on the same stack may be another one."""
    gdb.events.cont.connect(lambda _event: _returned.clear())
