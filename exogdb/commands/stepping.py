"""What `exo-syscall next`, `finish` and `step` share: describing the place that a CPU came to."""

import gdb

from exogdb.abi.numbers import NumberTable
from exogdb.abi.stub.entry_path import NUMBER_REGISTER
from exogdb.target.breakpoint.hit_arguments import name_arguments
from exogdb.target.cpus import Cpu
from exogdb.target.path import read_entry_path
from exogdb.target.registers import read_register
from exogdb.target.run.stepping import Entered, read_entered
from exogdb.target.run.waypoint import Arrival
from exogdb.view.stepping import Step

__all__ = ["describe_entry", "describe_inside", "describe_return", "describe_stop"]


def describe_entry(cpu: Cpu, table: NumberTable) -> Step:
    """`cpu` stands at the entry stub's first instruction."""
    return _call_step(cpu, "entry", read_entered(cpu), table)


def describe_inside(cpu: Cpu, reached: str, entered: Entered, table: NumberTable) -> Step:
    """The call that `entered` describes has come to `reached`, as `Step` names it."""
    return _call_step(cpu, reached, entered, table)


def describe_return(cpu: Cpu) -> Step:
    """`cpu` is back in user space, behind SYSCALL: the result is in rax."""
    value = read_register(cpu, NUMBER_REGISTER)
    rip = read_register(cpu, "rip")
    return Step(cpu.index, "user", rip, _location(), value=value, doubts=read_entry_path(cpu).doubts)


def describe_stop(arrival: Arrival) -> Step:
    """Something else stopped the guest; GDB has said what."""
    return Step(arrival.cpu.index, None, read_register(arrival.cpu, "rip"), _location(), report=arrival.report)


def _call_step(cpu: Cpu, reached: str, entered: Entered, table: NumberTable) -> Step:
    entry = table.find(entered.number)
    return Step(
        cpu=cpu.index,
        reached=reached,
        rip=read_register(cpu, "rip"),
        location=_location(),
        number=entered.number,
        name=entry.name if entry is not None else "",
        arguments=entered.arguments,
        named=tuple(name_arguments(cpu, entry.handler if entry is not None else "", entered.arguments)),
        doubts=read_entry_path(cpu).doubts,
    )


def _location() -> str:
    """The selected frame as GDB prints it: function, source line."""
    return gdb.execute("frame", to_string=True)
