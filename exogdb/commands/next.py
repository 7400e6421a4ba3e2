"""`exo-syscall next`: to the entry of the next system call."""

from argparse import ArgumentParser, Namespace

from exogdb.abi.choice import parse_choice
from exogdb.commands.candidates import complete_calls
from exogdb.commands.registry import Output, command
from exogdb.commands.stepping import describe_entry, describe_stop
from exogdb.target.numbers import read_number_table
from exogdb.target.run.stepping import run_to_entry
from exogdb.target.session import Session
from exogdb.view.stepping import render_step, step_to_json

__all__: list[str] = []


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("choice", nargs="*", metavar="CHOICE")
    parser.add_argument("--any-cpu", action="store_true")


@command("exo-syscall next", add_arguments=_add_arguments, complete={"CHOICE": complete_calls})
def exo_syscall_next(session: Session, options: Namespace) -> Output:
    """Run to the entry of the next system call.

    Usage: exo-syscall next [CHOICE] [--any-cpu] [--json]
    Example: exo-syscall next ipc_send

    Stops at the first instruction that SYSCALL leads to, on the selected CPU.
    CHOICE is a number, a name, a group or a list of them, as for `exo-syscall
    break`: other calls pass, each at the cost of a short stop.

    --any-cpu  on whichever CPU comes first; that CPU is selected then

    The guest runs until then; Ctrl-C and breakpoints of your own end it as always.
    `exo-syscall finish` goes on to the call's return, `exo-syscall step` into its
    handler.
    """
    table = read_number_table()
    choice = parse_choice(" ".join(options.choice), table) if options.choice else None
    arrival = run_to_entry(session.cpu, choice, any_cpu=options.any_cpu)
    step = describe_stop(arrival) if arrival.place is None else describe_entry(arrival.cpu, table)
    return Output(lambda style: render_step(step, style), lambda: step_to_json(step))
