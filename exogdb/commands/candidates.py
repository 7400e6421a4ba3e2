"""What the guest or the kernel's sources offer for the word being typed: calls, CPUs, processes.

For the `complete` of `exogdb.commands.registry.command`. Reads memory at most, and only of a stopped guest.
"""

from exogdb.abi.choice import complete_choice
from exogdb.target.breakpoint.placement import PLACEMENT
from exogdb.target.call.current_call import list_processes
from exogdb.target.cpus import all_cpus
from exogdb.target.session import find_guest

__all__ = ["complete_calls", "complete_cpu", "complete_process"]


def complete_calls(token: str) -> list[str]:
    """Continuations of a choice of system calls: names, groups, `all`, `unknown`."""
    return complete_choice(token, PLACEMENT.table())


def complete_cpu(_token: str) -> list[str]:
    """Every CPU's number; none without a guest."""
    return [str(cpu.index) for cpu in all_cpus()]


def complete_process(_token: str) -> list[str]:
    """Every process that the kernel's own table has; none where the debug info does not describe one."""
    session = find_guest()
    return [str(number) for number in list_processes(session.cpu)] if session is not None else []
