"""`exo-syscall break`: stop at system calls, at no cost to the others."""

import re
from argparse import ArgumentParser, Namespace

import gdb

from exogdb.abi.dispatch.request import Request
from exogdb.abi.dispatch.route import UNKNOWN
from exogdb.commands.candidates import complete_calls, complete_cpu, complete_process
from exogdb.commands.registry import Output, command, current_style
from exogdb.errors import UsageError
from exogdb.interrupts import undisturbed
from exogdb.target.breakpoint.breakpoints import Catch
from exogdb.target.breakpoint.gdb_events import follow_gdb
from exogdb.target.breakpoint.hit import Hit
from exogdb.target.breakpoint.hit_arguments import read_arguments
from exogdb.target.breakpoint.placement import PLACEMENT
from exogdb.target.breakpoint.returned import remember_returned, watch_resumes
from exogdb.target.cpus import all_cpus, find_cpu
from exogdb.target.current_process import find_process_id
from exogdb.target.run.ctrl_c import decide_undisturbed
from exogdb.target.symbols import find_symbol
from exogdb.view.hit import HitReport, render_hit
from exogdb.view.plan import BreakpointReport, PlaceLine, breakpoint_to_json, render_breakpoint
from exogdb.x86.word import MASK_64, to_signed

__all__ = ["FOLLOWER", "find_place_lines"]

_RESULT = re.compile(r"\$ret\b")
_MOST_IGNORED = (1 << 31) - 1  # GDB keeps the low half of anything longer
_VARIABLES = ("$nr", *(f"$arg{position}" for position in range(1, 7)), "$ret")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("calls", nargs="+", metavar="CALLS")
    parser.add_argument("--if", dest="condition", default="", metavar="EXPR")
    parser.add_argument("--temporary", action="store_true")
    parser.add_argument("--ignore", type=int, default=0, metavar="N")
    parser.add_argument("--cpu", type=int, metavar="N")
    parser.add_argument("--process", type=int, metavar="PID")
    parser.add_argument("--on-return", action="store_true")
    parser.add_argument("--commands", action="store_true")
    parser.add_argument("--explain", action="store_true")


_COMPLETE = {
    "CALLS": complete_calls,
    "--cpu": complete_cpu,
    "--process": complete_process,
    "--if": lambda _token: _VARIABLES,
}


@command("exo-syscall break", add_arguments=_add_arguments, complete=_COMPLETE, needs_guest=False)
def exo_syscall_break(options: Namespace) -> Output:
    """Stop at system calls by number, name, group or expression.

    Usage: exo-syscall break CALLS [--if EXPR] [--on-return] [--cpu N]
                             [--process PID] [--temporary] [--ignore N]
                             [--commands] [--explain] [--json]
    Example: exo-syscall break ipc_send --if '$arg3 > 100'

    CALLS is a list, separated by commas or blanks, of
      101, 0x65            a number
      ipc_send             a name, also SYS_IPC_SEND
      100-103              the numbers in a range
      %ipc                 a group: %process %ipc %memory %file, whatever the
                           kernel's number table has, and the `[groups]` of the
                           profile that `set exo profile` names
      /^ipc_/              the names that a regular expression matches
      all, unknown         every number; the numbers that the table lacks
    and `!` in front of the list or of one item takes calls out: !getpid or
    %ipc,!ipc_recv.

    The answer says where the breakpoint is and what calls pay that are not wanted:
    `free`, `nearly free (watched table)`, `page shared with the dispatcher`, `one
    stop per system call`. The guest's code is read for that, nothing in it
    changes.

    --if EXPR      stop only if EXPR is true: any GDB expression, also over $nr,
                   $arg1 to $arg6 and $ret
    --on-return    stop when the call returns, with its value in $ret
    --cpu N        only calls that start on CPU N
    --process PID  only calls of the process that the kernel calls PID
    --temporary    delete the breakpoint after its first stop
    --ignore N     do not stop at the first N hits
    --commands     read GDB commands to run at each stop, up to a line that says
                   `end`
    --explain      say why each place was chosen

    It is an ordinary breakpoint of GDB: `info breakpoints`, `disable`, `delete`,
    `ignore`, `commands` and `save breakpoints` work on it. Without a guest it is
    pending until the kernel handles its first call.
    """
    catch = PLACEMENT.add(_to_request(options), temporary=options.temporary)
    assert catch.row is not None
    if options.ignore:
        catch.row.ignore_count = options.ignore
    report = _to_report(catch, catch.row)
    return Output(
        lambda style: render_breakpoint(report, style, explain=options.explain),
        lambda: breakpoint_to_json(report),
        then=(lambda: _ask_for_commands(report.number)) if options.commands else None,
    )


def _to_request(options: Namespace) -> Request:
    """What the user asks for.

    :raise UsageError: a CPU or a process that no guest has, a number of hits that GDB cannot count to, or a
        result that is asked for before there is one.
    """
    if options.cpu is not None and options.cpu < 0:
        raise UsageError(f"there is no CPU {options.cpu}: CPUs count from 0")
    if options.process is not None and not 0 <= options.process <= MASK_64:
        raise UsageError(f"no process has the number {options.process}")
    if not 0 <= options.ignore <= _MOST_IGNORED:
        raise UsageError(f"--ignore takes how many hits to pass over, from 0 to {_MOST_IGNORED}")
    if _RESULT.search(options.condition) and not options.on_return:
        raise UsageError(f"`--if {options.condition}`: $ret is known when a call returns: add --on-return")
    _check_cpu(options.cpu)
    return Request(" ".join(options.calls), options.condition, options.cpu, options.process, options.on_return)


def _to_report(catch: Catch, row: gdb.Breakpoint) -> BreakpointReport:
    doubts = PLACEMENT.plan.doubts if PLACEMENT.plan is not None else ()
    return BreakpointReport(row.number, row.temporary, catch.request.choice, find_place_lines(catch), doubts)


def _ask_for_commands(number: int) -> None:
    # From Python, `commands` takes its lines from the string; `with` has it read them where the user types.
    gdb.execute(f"with confirm off -- commands {number}", from_tty=True)


def find_place_lines(catch: Catch) -> list[PlaceLine]:
    """The places of one breakpoint with the names that a user knows; empty while it is pending."""
    if catch.setting is None:
        return []
    table = PLACEMENT.table()
    lines = []
    for place in catch.setting.places:
        name = "unknown" if place.number == UNKNOWN else table.name_of(place.number)
        lines.append(PlaceLine(name, place, str(find_symbol(place.address) or "")))
    return lines


def _check_cpu(index: int | None) -> None:
    if index is not None and all_cpus():
        find_cpu(index)


def _exo_syscall_stop(*arguments: gdb.Value) -> bool:
    """Whether breakpoint N on system calls stops here: the condition of every such breakpoint.

    Usage: $_exo_syscall_stop(N)
    """
    return len(arguments) == 1 and decide_undisturbed(lambda: PLACEMENT.should_stop(int(arguments[0])))


@undisturbed
def _report_stop(event: gdb.StopEvent) -> None:
    if not isinstance(event, gdb.BreakpointEvent):
        return
    # A breakpoint of exogdb's own that stopped at the same place may be gone by now.
    rows = [row for row in event.breakpoints if row.is_valid()]
    catches = [PLACEMENT.find(row.number) for row in rows if not _is_silent(row)]
    # Several breakpoints may have stopped at one call.
    for hit in dict.fromkeys(catch.hit for catch in catches if catch is not None and catch.hit is not None):
        if hit.result is not None and hit.return_slot is not None:
            remember_returned(hit.return_slot, hit.number)
        gdb.write(_describe(hit) + "\n")


def _is_silent(row: gdb.Breakpoint) -> bool:
    """Whether the user's commands begin with `silent`: GDB says nothing about the stop then."""
    return (row.commands or "").lstrip().startswith("silent")


def _describe(hit: Hit) -> str:
    entry = PLACEMENT.table().find(hit.number)
    process = find_process_id(hit.cpu)
    report = HitReport(
        hit.number,
        entry.name if entry is not None else str(hit.number),
        read_arguments(hit, entry.handler if entry is not None else ""),
        hit.cpu.index,
        "" if process is None else str(process),
        "" if hit.result is None else str(to_signed(hit.result)),
        "" if hit.other is None else f"{hit.other:#x}",
    )
    return render_hit(report, current_style())


FOLLOWER = follow_gdb(PLACEMENT)
watch_resumes()
gdb.events.stop.connect(_report_stop)
