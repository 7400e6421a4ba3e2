"""`exo-syscall finish`: to the return of the system call in progress."""

from argparse import Namespace

from exogdb.commands.registry import Output, command
from exogdb.commands.stepping import describe_return, describe_stop
from exogdb.errors import UsageError
from exogdb.target.run.stepping import find_call, run_to_return
from exogdb.target.session import Session
from exogdb.view.stepping import render_step, step_to_json

__all__: list[str] = []


@command("exo-syscall finish")
def exo_syscall_finish(session: Session, _options: Namespace) -> Output:
    """Run to the return of the system call; show its result.

    Usage: exo-syscall finish [--json]
    Example: exo-syscall finish

    Stops behind the program's SYSCALL instruction. The call is followed by its
    kernel stack: other processes, other CPUs and a move to another CPU do not
    disturb. The CPU that it returns on is selected then.

    The guest runs until then; Ctrl-C and breakpoints of your own end it as always.
    When the call's stack leads back to another place (exec, a signal handler), it
    stops there and says so; a call that never returns runs on.
    """
    call = find_call(session.cpu)
    if call is None:
        raise UsageError(
            f"CPU {session.cpu.index} is not inside a system call: `exo-syscall next` goes to the next one"
        )
    arrival = run_to_return(call)
    step = describe_stop(arrival) if arrival.place is None else describe_return(arrival.cpu)
    return Output(lambda style: render_step(step, style), lambda: step_to_json(step))
