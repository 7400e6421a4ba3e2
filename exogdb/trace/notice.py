"""News about a system call: what an engine's event has come to, for whoever writes a trace."""

from enum import Enum
from typing import NamedTuple

from exogdb.trace.call import Call

__all__ = ["Notice", "NoticeKind"]


class NoticeKind(Enum):
    """What there is to say about a call, in the order in which it becomes true."""

    WHOLE = "whole"
    """Entered and returned (or never to return) with nothing else on its CPU in between: one line."""
    UNFINISHED = "unfinished"
    """Still open, while its CPU already does something else."""
    RESUMED = "resumed"
    """Returned, after an UNFINISHED."""


class Notice(NamedTuple):
    """One line's worth of news about `call`, which goes on changing until it has returned."""

    kind: NoticeKind
    call: Call
