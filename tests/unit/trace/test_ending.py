"""exogdb/trace/pairing.py: when a process is gone, so that its address space is another's."""

import pytest

from tests.unit.trace.events import FORK, WAIT, enter, feed, leave, linux

_NOHANG, _UNTRACED, _CONTINUED = 1, 2, 8


@pytest.mark.parametrize(
    ("options", "process"),
    [(0, 3), (_NOHANG, 3), (_UNTRACED, 2), (_NOHANG | _CONTINUED, 2), (0x7FFF_F002, 3)],
)
def test_a_child_that_has_only_stopped_is_not_gone(options: int, process: int) -> None:
    """The last argument is an address: that kernel's wait has no options."""
    pairing = linux()
    feed(
        pairing, enter(0x1000, FORK, process=10), leave(0x1000, 12), enter(0x2000, 4, process=12), leave(0x2000, 1)
    )
    feed(pairing, enter(0x1000, WAIT, 12, 0x8000, options), leave(0x1000, 12))
    (notice,) = feed(pairing, enter(0x2000, 4), leave(0x2000, 1))
    assert notice.call.process == process
