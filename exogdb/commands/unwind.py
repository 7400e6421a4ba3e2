"""Backtraces across the system-call boundary: the unwinder, and the decorator that names the boundary.

No command of its own: `bt` uses both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import gdb
import gdb.unwinder
from gdb.FrameDecorator import FrameDecorator

from exogdb.abi.boundary import BOUNDARY_NAME, BOUNDARY_PC, make_boundary_object
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.abi.stub.stub_state import StubState
from exogdb.errors import ExoError
from exogdb.reading import Unavailable
from exogdb.target.call.call_number import find_number
from exogdb.target.call.parameter import function_parameters, is_kept
from exogdb.target.call.unwinder import StubUnwinder, find_stub_state
from exogdb.target.cpus import selected_cpu
from exogdb.target.kernel_memory import KernelMemory, find_kernel_gs_base
from exogdb.target.numbers import read_number_table
from exogdb.target.own_files import OwnFiles
from exogdb.target.path import learn_entry_path

if TYPE_CHECKING:
    from gdb.FrameDecorator import DAPFrameDecorator  # GDB 14 and newer

__all__ = ["BoundaryFilter", "install"]

_Decorated: TypeAlias = "FrameDecorator | DAPFrameDecorator"


class BoundaryDecorator(FrameDecorator):
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


class BoundaryFilter:
    """GDB's frame filter that decorates boundary frames and lets every other frame pass."""

    name = "exo-syscall"
    priority = 100

    def __init__(self) -> None:
        self._wanted = True

    @property
    def enabled(self) -> bool:
        """Only for backtraces that cross: with any filter enabled GDB prints all others differently."""
        return self._wanted and _find_boundary() is not None

    @enabled.setter
    def enabled(self, wanted: bool) -> None:
        self._wanted = wanted

    def filter(self, iterator: Iterator[_Decorated]) -> Iterator[_Decorated]:
        """Called by GDB with the frames of a backtrace, innermost first."""
        boundary = _find_boundary()
        for frame in iterator:
            inner = frame.inferior_frame()
            if inner.pc() == BOUNDARY_PC:
                yield BoundaryDecorator(inner)
            elif boundary is not None and inner.level() < boundary.level():
                yield _KernelDecorator(inner, boundary)
            else:
                yield _PlainDecorator(inner)


def _find_boundary() -> gdb.Frame | None:
    """The boundary frame of the selected thread's backtrace, if that crosses."""
    try:
        frame: gdb.Frame | None = gdb.newest_frame()
        while frame is not None and frame.pc() != BOUNDARY_PC:
            frame = frame.older()
    except gdb.error:
        return None
    return frame


class _Observer:
    """Learns the path of a guest when it stops, so that the unwinder need not ask for it."""

    def __init__(self) -> None:
        self._own_files = OwnFiles()

    def on_stop(self, _event: object) -> None:
        """Runs after every stop that the user sees."""
        connection = gdb.selected_inferior().connection
        if not isinstance(connection, gdb.RemoteTargetConnection):
            return
        try:
            if learn_entry_path(selected_cpu()):
                self._add_boundary_symbol()
        except (ExoError, gdb.error):
            return  # a backtrace that does not cross is what GDB has without us

    def _add_boundary_symbol(self) -> None:
        if any(self._own_files.hold(objfile.filename) for objfile in gdb.objfiles()):
            return
        file = self._own_files.write("system-call-boundary", make_boundary_object())
        gdb.execute(f"add-symbol-file {file}", to_string=True)


def install() -> None:
    """Make `bt` cross the boundary: unwinder, frame filter, and learning at each stop."""
    gdb.unwinder.register_unwinder(None, StubUnwinder(), True)
    gdb.frame_filters[BoundaryFilter.name] = BoundaryFilter()
    gdb.events.stop.connect(_Observer().on_stop)


install()
