"""`exo-syscall step`: across the boundary between user code and handler, in either direction."""

from argparse import Namespace

from exogdb.abi.stub.entry_path import EntryPath
from exogdb.commands.registry import Output, command
from exogdb.commands.stepping import describe_inside, describe_return, describe_stop
from exogdb.errors import UsageError
from exogdb.target.numbers import read_number_table
from exogdb.target.path import read_entry_path
from exogdb.target.registers import read_cpl, read_register
from exogdb.target.run.stepping import (
    CallInProgress,
    find_call,
    find_dispatcher,
    find_handler,
    read_entered,
    run_to_handler,
    run_to_own_entry,
    run_to_own_stack,
    run_to_return,
)
from exogdb.target.run.waypoint import Arrival
from exogdb.target.session import Session
from exogdb.view.stepping import Step, render_step, step_to_json

__all__: list[str] = []


@command("exo-syscall step")
def exo_syscall_step(session: Session, _options: Namespace) -> Output:
    """Step from user code into the call's handler, or back out.

    Usage: exo-syscall step [--json]
    Example: exo-syscall step

    In user code: run to the next system call of this program, and stop in the
    function that handles its number. At the stub's entry: the same for this call.
    In a handler, or on the way back: run to the return in user space.

    The program is followed by its page tables and FS base, the call by its kernel
    stack: neither is lost when the process is switched away or moves to another
    CPU. Ctrl-C and breakpoints of your own end the run as always.
    """
    step = _step(session)
    return Output(lambda style: render_step(step, style), lambda: step_to_json(step))


def _step(session: Session) -> Step:
    cpu = session.cpu
    if read_cpl(cpu) == 3:
        arrival = run_to_own_entry(cpu)
        if arrival.place is None:
            return describe_stop(arrival)
        cpu = arrival.cpu
    call = find_call(cpu)
    if call is None:
        raise UsageError(f"CPU {cpu.index} is in the kernel, outside a system call: nothing to step across")
    if _is_at_entry(call, read_entry_path(cpu)):
        return _into_handler(call)
    arrival = run_to_return(call)
    return describe_stop(arrival) if arrival.place is None else describe_return(arrival.cpu)


def _is_at_entry(call: CallInProgress, path: EntryPath) -> bool:
    return read_register(call.cpu, "rip") == path.entry


def _into_handler(call: CallInProgress) -> Step:
    table = read_number_table()
    entered = read_entered(call.cpu)
    settled = run_to_own_stack(call)
    if isinstance(settled, Arrival):
        return describe_stop(settled)
    handler = find_handler(settled.cpu, entered.number)
    wanted = handler if handler is not None else find_dispatcher(call.path).address
    if wanted is None:
        raise UsageError(f"neither the handler of system call {entered.number} nor the dispatcher is known")
    arrival = run_to_handler(settled, wanted)
    if arrival.place is None:
        return describe_stop(arrival)
    inside = "handler" if handler is not None else "dispatcher"
    reached = inside if arrival.place.address == wanted else "dispatcher return"
    return describe_inside(arrival.cpu, reached, entered, table)
