"""What GDB reports of kernels, connections and rows, and what follows from it for breakpoints on system calls."""

import gdb

from exogdb.abi.choice import parse_choice
from exogdb.abi.dispatch.request import decode_location
from exogdb.errors import ExoError, TargetLostError, UsageError
from exogdb.target.breakpoint.breakpoints import Catch, SyscallBreakpoint
from exogdb.target.breakpoint.hidden_breakpoints import delete_retired
from exogdb.target.breakpoint.placement import Placement
from exogdb.target.cpus import selected_thread
from exogdb.target.hooks import run_before, run_behind
from exogdb.target.reset import call_at_reset

__all__ = ["Follower", "follow_gdb"]


def follow_gdb(placement: Placement) -> "Follower":
    """Keep `placement` true from now on: through stops, deletions, new kernels and lost connections.

    Whoever calls this has `Follower.on_created` called for new rows: the first may have to import this.
    """
    follower = Follower(placement)
    gdb.events.stop.connect(follower.on_stop)
    gdb.events.before_prompt.connect(lambda *_nothing: follower.on_prompt())
    gdb.events.breakpoint_deleted.connect(placement.drop)
    gdb.events.breakpoint_modified.connect(placement.follow)
    gdb.events.new_objfile.connect(follower.on_new_objfile)
    gdb.events.clear_objfiles.connect(lambda _event: follower.on_clear_objfiles())
    gdb.events.connection_removed.connect(lambda _event: placement.forget())
    call_at_reset(placement.forget_calls)
    # GDB writes `disable $bpnum.1` for a location that is not enabled, which is an error where the row is pending.
    run_before("save breakpoints", placement.show_all)
    run_behind("save breakpoints", placement.show_places)
    return follower


class Follower:
    """One method for each event that takes more than a word to the placement."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._may_watch = gdb.parameter("can-use-hw-watchpoints")

    def on_stop(self, _event: gdb.StopEvent) -> None:
        """Plan, if that was not possible before."""
        delete_retired()
        if self._placement.plan is None:
            self._replan()

    def on_prompt(self) -> None:
        """`set can-use-hw-watchpoints` has no event; GDB refuses to resume with a watchpoint that it forbids."""
        if self._placement.is_showing_all and not _is_running():
            self._placement.show_places()  # `save breakpoints` has failed
        may_watch = gdb.parameter("can-use-hw-watchpoints")
        if may_watch == self._may_watch or _is_running():
            return
        self._may_watch = may_watch
        if self._placement.plan is None:
            return
        self._placement.forget()
        delete_retired()  # GDB would look at them even if they are disabled
        self._replan()
        if any(catch.request.on_return for catch in self._placement.catches()):
            _complain("calls that are in progress now will return unseen")

    def on_created(self, row: gdb.Breakpoint) -> None:
        """Take in a row with a location of this kind that GDB's `break` made: from `save breakpoints`, say."""
        if isinstance(row, SyscallBreakpoint) or not row.location:
            return
        try:
            request = decode_location(row.location)
            if request is None:
                return
            parse_choice(request.choice, self._placement.table())
        except ExoError as error:
            _complain(str(error))
            return
        self._placement.take_in(row, Catch(request))
        self._replan()

    def on_clear_objfiles(self) -> None:
        """Forget the kernel whose symbols are gone."""
        # Removing the old probe file says the same as a new kernel.
        if not self._placement.is_unloading:
            self._placement.forget()
            self._replan()

    def on_new_objfile(self, event: gdb.NewObjFileEvent) -> None:
        """Plan anew where it is a kernel's."""
        space = gdb.current_progspace()
        is_kernel = space is not None and event.new_objfile.filename == space.filename
        if is_kernel and not self._placement.is_own_file(event.new_objfile):
            self._placement.forget()
            self._replan()
            self._report_strangers()

    def _replan(self) -> None:
        """GDB shows what its events raise as Python exceptions, which say nothing to a user."""
        try:
            self._placement.replan()
        except ExoError as error:
            _complain(str(error))

    def _report_strangers(self) -> None:
        """GDB disables a row that loses all its locations, and says nothing of it."""
        for number, catch in self._placement.rows():
            try:
                parse_choice(catch.request.choice, self._placement.table())
            except UsageError as error:
                _complain(f"breakpoint {number} is pending, until a kernel that has it is loaded: {error}")


def _is_running() -> bool:
    try:
        thread = selected_thread()
    except TargetLostError:
        return False
    return thread is not None and thread.is_running()


def _complain(sentence: str) -> None:
    gdb.write(f"exo-syscall break: {sentence}\n", gdb.STDERR)
