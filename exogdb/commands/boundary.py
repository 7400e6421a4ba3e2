"""The frame on the system-call boundary as `bt` shows it, and the frames on both sides of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import gdb
from gdb.FrameDecorator import FrameDecorator

from exogdb.abi.boundary import BOUNDARY_NAME, BOUNDARY_PC, make_boundary_object
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.abi.stub.stub_state import StubState
from exogdb.errors import ExoError
from exogdb.reading import Unavailable
from exogdb.target.call.call_number import find_number
from exogdb.target.call.parameter import function_parameters, is_kept
from exogdb.target.call.stub_frames import find_stub_state
from exogdb.target.cpus import selected_cpu
from exogdb.target.kernel_memory import KernelMemory, find_kernel_gs_base
from exogdb.target.numbers import read_number_table
from exogdb.target.own_files import OwnFiles
from exogdb.target.path import learn_entry_path

if TYPE_CHECKING:
    from gdb.FrameDecorator import DAPFrameDecorator  # GDB 14 and newer

__all__ = ["decorate_frames", "find_boundary", "learn_boundary"]

_Decorated: TypeAlias = "FrameDecorator | DAPFrameDecorator"


def decorate_frames(frames: Iterator[_Decorated]) -> Iterator[_Decorated]:
    """The frames of a backtrace, innermost first, as it shows them if it crosses the boundary."""
    boundary = find_boundary()
    for frame in frames:
        inner = frame.inferior_frame()
        if inner.pc() == BOUNDARY_PC:
            yield _BoundaryDecorator(inner)
        elif boundary is not None and inner.level() < boundary.level():
            yield _KernelDecorator(inner, boundary)
        else:
            yield _PlainDecorator(inner)


def find_boundary() -> gdb.Frame | None:
    """The boundary frame of the selected thread's backtrace, if that crosses."""
    try:
        frame: gdb.Frame | None = gdb.newest_frame()
        while frame is not None and frame.pc() != BOUNDARY_PC:
            frame = frame.older()
    except gdb.error:
        return None
    return frame


_own_files = OwnFiles()


def learn_boundary() -> None:
    """Analyse the path of the selected CPU, for the unwinder, which must not ask. The guest must be stopped."""
    try:
        if learn_entry_path(selected_cpu()):
            _add_boundary_symbol()
    except (ExoError, gdb.error):
        return  # a backtrace that does not cross is what GDB has without us


def _add_boundary_symbol() -> None:
    if any(_own_files.hold(objfile.filename) for objfile in gdb.objfiles()):
        return
    file = _own_files.write("system-call-boundary", make_boundary_object())
    gdb.execute(f"add-symbol-file {file}", to_string=True)


class _BoundaryDecorator(FrameDecorator):
    """Shows the boundary frame as `<system call 101 ipc_send>`, without an address.

    Where the number is not known any more it says why, and where the result may have taken its place that it may.
    Where the analysis of the stub is not sure of something it says so, because everything outwards depends on it.
    """

    def function(self) -> str:
        """The text in the place of the function's name."""
        if self._found is None:
            return BOUNDARY_NAME
        doubt = " (not sure: see exo-syscall abi)" if self._found[0].doubts else ""
        try:
            return self._describe_call(*self._found) + doubt
        except ExoError as error:  # a file that the user named cannot be read, say
            return f"{BOUNDARY_NAME} (number unavailable: {error}){doubt}"

    def address(self) -> None:
        """There is no code at the boundary."""

    def frame_args(self) -> None:
        """A boundary has no arguments."""

    @cached_property
    def _found(self) -> tuple[EntryPath, StubState] | None:
        stub = self.inferior_frame().newer()
        return find_stub_state(stub.pc()) if stub is not None else None

    def _describe_call(self, path: EntryPath, state: StubState) -> str:
        stub = self.inferior_frame().newer()
        assert stub is not None  # it is where `state` was found
        cpu = selected_cpu()
        memory = KernelMemory(cpu, path, find_kernel_gs_base(cpu, None, 0))
        table = read_number_table([path.entry])
        number = find_number(path, state, stub, memory, table)
        if isinstance(number, Unavailable):
            return f"{BOUNDARY_NAME} (number unavailable: {number.reason})"
        name = table.name_of(number.number) if number.number in table else ""
        text = f"{number.number} {name}".rstrip()
        if number.doubt:
            return f"{BOUNDARY_NAME} ({text}, or already the result)"
        return f"<system call {text}>"


class _PlainDecorator(FrameDecorator):
    """Any other frame. GDB prints `??` for a function without a name, but with filters nothing at all."""

    def function(self) -> str:
        """The function's name as `bt` shows it without filters."""
        return self.inferior_frame().name() or "??"


class _KernelDecorator(_PlainDecorator):
    """A frame that the stub called. Its arguments are `<not saved>` where a call may have overwritten them since.

    GDB shows what is in their registers now. `boundary` is the backtrace's boundary frame.
    """

    def __init__(self, base: gdb.Frame, boundary: gdb.Frame) -> None:
        super().__init__(base)
        self._boundary = boundary

    def frame_args(self) -> Iterator["_Argument"] | None:
        """The arguments; None if debug info has none."""
        frame = self.inferior_frame()
        try:
            parameters = function_parameters(frame.block())
        except RuntimeError:  # no debug info
            return None
        lost = self._boundary.read_register(_NEVER_SAVED)
        values = (None if is_kept(frame, each) or not lost.is_optimized_out else lost for each in parameters)
        return iter([_Argument(*pair) for pair in zip(parameters, values, strict=True)])


_NEVER_SAVED = "mxcsr"  # the unwinder says nothing of it, so that GDB has `<not saved>` for it


@dataclass(frozen=True)
class _Argument:
    """A parameter and its value, for which GDB asks like this; None leaves the value to GDB."""

    parameter: gdb.Symbol
    known: gdb.Value | None

    def symbol(self) -> gdb.Symbol:
        """The parameter, whose name GDB prints."""
        return self.parameter

    def value(self) -> gdb.Value | None:
        """What GDB prints behind it."""
        return self.known
