"""`exo-syscall list`: the kernel's system calls, their breakpoints and what one would cost."""

from argparse import ArgumentParser, Namespace

from exogdb.abi.choice import Choice, parse_choice
from exogdb.abi.numbers import NumberTable, SyscallNumber
from exogdb.commands.candidates import complete_calls
from exogdb.commands.registry import Output, command
from exogdb.errors import ExoError, UnavailableError
from exogdb.target.breakpoint.placement import PLACEMENT
from exogdb.target.breakpoint.planning import SyscallPlan, read_plan
from exogdb.target.session import require_guest
from exogdb.target.symbols import find_symbol
from exogdb.view.plan import PlaceLine
from exogdb.view.syscalls import SyscallList, SyscallRow, list_to_json, render_list

__all__: list[str] = []


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("calls", nargs="*", metavar="CALLS")


@command("exo-syscall list", add_arguments=_add_arguments, complete={"CALLS": complete_calls}, needs_guest=False)
def exo_syscall_list(options: Namespace) -> Output:
    """List the system calls, and what a breakpoint on each costs.

    Usage: exo-syscall list [CALLS] [--json]
    Example: exo-syscall list %ipc

    CALLS chooses as in `exo-syscall break`; all by default. The numbers come from
    the kernel's own sources. With a guest, the last columns say where a breakpoint
    on each number would stop and what the other calls would pay.
    """
    table = PLACEMENT.table()
    if not len(table):
        raise UnavailableError("no table of system-call numbers was found: name it with `set exo syscalls FILE`")
    choice = parse_choice(" ".join(options.calls), table) if options.calls else None
    plan, reason = _find_plan(table)
    breakpoints = _read_breakpoints(table)
    rows = [_to_row(entry, plan, breakpoints) for entry in table if choice is None or entry.number in choice]
    listing = SyscallList(rows, table.source, reason, plan.doubts if plan is not None else ())
    return Output(lambda style: render_list(listing, style), lambda: list_to_json(listing))


def _find_plan(table: NumberTable) -> tuple[SyscallPlan | None, str]:
    if PLACEMENT.plan is not None and PLACEMENT.plan.table.entries == table.entries:
        return PLACEMENT.plan, ""
    try:
        return read_plan(require_guest().cpu), ""
    except ExoError as error:
        return None, str(error)


def _read_breakpoints(table: NumberTable) -> list[tuple[int, Choice]]:
    """The rows of `info breakpoints` that are ours, and what each chooses."""
    rows = ((catch.row, catch.request) for catch in PLACEMENT.catches())
    return [(row.number, PLACEMENT.choice_of(request, table)) for row, request in rows if row is not None]


def _to_row(entry: SyscallNumber, plan: SyscallPlan | None, breakpoints: list[tuple[int, Choice]]) -> SyscallRow:
    line = None
    if plan is not None and entry.number in plan.places:
        place = plan.places[entry.number]
        line = PlaceLine(entry.name, place, str(find_symbol(place.address) or ""))
    return SyscallRow(entry, tuple(row for row, choice in breakpoints if entry.number in choice), line)
