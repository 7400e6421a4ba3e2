"""The registers of one of GDB's frames, as numbers."""

import gdb

from exogdb.errors import UnavailableError
from exogdb.x86.word import MASK_64

__all__ = ["FrameRegisters", "read_frame_register"]


class FrameRegisters(dict[str, int]):
    """Register name -> value in a GDB frame, read when asked for."""

    def __init__(self, frame: gdb.Frame) -> None:
        super().__init__()
        self._frame = frame

    def __missing__(self, name: str) -> int:
        return read_frame_register(self._frame, name)


def read_frame_register(frame: gdb.Frame, name: str) -> int:
    """Register `name` as it was in `frame`, unsigned.

    :raise UnavailableError: the frame does not have it any more.
    """
    try:
        value = frame.read_register(name)
        if value.is_optimized_out:
            raise UnavailableError(f"{name} was not kept")
        return int(value) & MASK_64
    except (gdb.error, ValueError) as error:
        raise UnavailableError(f"{name}: {error}") from error
