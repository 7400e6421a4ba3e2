"""Every error that exogdb raises on purpose, in one tree.

::

    ExoError                  str(e) is one sentence: what, where, and the next step
    +-- UsageError            the user asked for something that does not exist
    +-- UnavailableError      the target cannot answer; .reason fits into "unavailable (...)"
    |   +-- MemoryFault       an address that could not be read or written
    |   +-- NoTargetError     no program is being debugged, or not by way of QEMU's GDB stub
    |   +-- TargetLostError   the connection to the guest broke
    |   +-- MonitorError      QEMU's monitor (QMP or HMP) refused, or is not there
    +-- AnalysisError         code in the guest that could not be understood
    +-- OutputError           what was to be written could not be
    +-- FormatError           bytes or a file that are not what they should be
    +-- LaunchError           QEMU or GDB could not be started, or did not get ready in time

The command registry turns any of them into one `gdb.GdbError`, so that a user reads a sentence and never a
traceback. Nothing else is caught: a different exception is a bug in exogdb.
"""

__all__ = [
    "AnalysisError",
    "ExoError",
    "FormatError",
    "LaunchError",
    "MemoryFault",
    "MonitorError",
    "NoTargetError",
    "OutputError",
    "TargetLostError",
    "UnavailableError",
    "UsageError",
]


class ExoError(Exception):
    """The root. `str(error)` is one sentence that says what, where and the next step."""


class UsageError(ExoError):
    """The user's mistake: an unknown name, a number out of range, a bad option."""


class UnavailableError(ExoError):
    """The target cannot answer. `reason` is short enough for `unavailable (reason)`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MemoryFault(UnavailableError):
    """`size` bytes at `address` (virtual unless the reason says otherwise) are not accessible.

    >>> str(MemoryFault(0xdead0000, 8))
    'cannot read 8 bytes at 0xdead0000'
    """

    def __init__(self, address: int, size: int, reason: str = "") -> None:
        noun = "byte" if size == 1 else "bytes"
        super().__init__(reason or f"cannot read {size} {noun} at {address:#x}")
        self.address = address
        self.size = size


class NoTargetError(UnavailableError):
    """There is no guest to ask, or it is not one that exogdb can ask."""


class TargetLostError(UnavailableError):
    """The guest went away in the middle: QEMU exited or the connection closed."""


class MonitorError(UnavailableError):
    """QEMU's monitor is not reachable, or refused a request."""


class AnalysisError(ExoError):
    """Machine code in the guest that the analysis could not follow; `address` is where, if known."""

    def __init__(self, message: str, address: int | None = None) -> None:
        super().__init__(message)
        self.address = address


class OutputError(ExoError):
    """A file, or whoever reads the output, takes no more; says which and why."""


class FormatError(ExoError):
    """Bytes or a file that are not what they should be. `offset` is in bytes from the start, if known."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message if offset is None else f"{message} (at offset {offset:#x})")
        self.offset = offset


class LaunchError(ExoError):
    """QEMU or GDB could not be started, or did not get ready before its deadline."""
