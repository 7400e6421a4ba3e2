"""`exo-syscall frame`: what the entry stub saved, and which call is in progress."""

from argparse import ArgumentParser, Namespace

from exogdb.commands.candidates import complete_cpu, complete_process
from exogdb.commands.registry import Output, command
from exogdb.reading import Reading
from exogdb.target.call.current_call import Call, read_blocked_call, read_call, read_process_call
from exogdb.target.cpus import find_cpu
from exogdb.target.session import Session
from exogdb.target.symbols import evaluate_address, find_symbols
from exogdb.view.frame import FrameReport, frame_to_json, render_frame

__all__ = ["make_frame_output"]


def _add_arguments(parser: ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--cpu", type=int, metavar="N", help="another CPU than the selected one")
    where.add_argument("--stack", metavar="ADDRESS", help="the call in progress on the kernel stack at ADDRESS")
    where.add_argument("--process", type=int, metavar="PID", help="the call that a blocked process is in")


def make_frame_output(call: Call, where: str) -> Output:
    """The call in both forms."""
    values = {register.value.value for register in call.frame.registers if isinstance(register.value, Reading)}
    found = find_symbols(value for value in values if value > 0xFFFF)
    symbols = {value: str(symbol) for value, symbol in found.items()}
    report = FrameReport(
        cpu=call.cpu,
        where=where,
        moment=call.moment,
        number=call.number,
        name=call.name,
        handler=call.handler,
        arguments=call.arguments,
        frame=call.frame,
        symbols=symbols,
        doubts=call.doubts,
    )
    return Output(lambda style: render_frame(report, style), lambda: frame_to_json(report))


@command(
    "exo-syscall frame",
    add_arguments=_add_arguments,
    complete={"--cpu": complete_cpu, "--process": complete_process},
)
def exo_syscall_frame(session: Session, options: Namespace) -> Output:
    """Show what the entry stub saved: registers and arguments.

    Usage: exo-syscall frame [--cpu N | --process PID | --stack ADDRESS] [--json]

    Works in the stub at any instruction, in the dispatcher, deep in a handler and
    in an interrupt on top of it. In user mode the last frame is shown and called
    stale. Arguments have the names of the handler's parameters. The layout is
    derived from the stub's code (`exo-syscall abi`). Nothing in the guest changes.

    --process PID shows a process that is blocked in a call, if the kernel's debug
    info has a process table with parked stack pointers (or what its CPU does, if
    one runs it); --stack ADDRESS does the same for any address in its kernel
    stack, without debug info.

    Example: exo-syscall frame
    Example: exo-syscall frame --process 2
    """
    if options.stack is not None:
        address = evaluate_address(options.stack)
        return make_frame_output(read_blocked_call(session.cpu, address, None), f"stack at {address:#x}")
    if options.process is not None:
        call = read_process_call(session.cpu, options.process)
        where = f", on CPU {call.cpu}" if call.cpu is not None else ""
        return make_frame_output(call, f"process {options.process}{where}")
    cpu = find_cpu(options.cpu) if options.cpu is not None else session.cpu
    return make_frame_output(read_call(cpu), f"CPU {cpu.index}")
