"""Where a kernel's system calls are seen: entering the stub, and coming back from its dispatcher.

The return is taken right after the call of the dispatcher: the result is in rax, and the instruction after a call
always begins a translation block, which is what QEMU's log goes by. `sysretq` itself need not begin one.
"""

from dataclasses import dataclass

from exogdb.abi.stub.entry_path import EntryPath
from exogdb.abi.stub.location import InRegister
from exogdb.errors import AnalysisError

__all__ = ["CALLEE_SAVED", "EXEC_HANDLERS", "TracePoints", "find_trace_points"]

CALLEE_SAVED = frozenset({"rbx", "rbp", "r12", "r13", "r14", "r15"})
# Of the calls that return in another address space: the reference kernel, Linux.
EXEC_HANDLERS = ("sys_exec", "__x64_sys_execve", "__x64_sys_execveat")


@dataclass(frozen=True)
class TracePoints:
    """Virtual addresses. `kept` are the callee-saved registers that the stub leaves alone between the two.

    `exits` are the last `swapgs` of every way back, if all returns and nothing else go through them: there the
    machine is the user's again. Breakpoints may be there instead of at `returns`.

    `links` is for a stub that changes page tables: the instruction behind the write of CR3, where the same CPU is
    in the kernel's address space, which is what the return will show. `result_in_rax` is False where the result
    comes from the saved frame, so that rax at the return says nothing.

    `handlers` are the first instructions of the calls in `EXEC_HANDLERS`. They are seen on the thread's kernel
    stack, which is all that such a call's entry and its return have in common.
    """

    entry: int
    returns: frozenset[int]
    kept: frozenset[str] = CALLEE_SAVED
    exits: frozenset[int] = frozenset()
    links: frozenset[int] = frozenset()
    result_in_rax: bool = True
    handlers: frozenset[int] = frozenset()

    @property
    def dfilter(self) -> str:
        """The value for QEMU's `-dfilter`.

        >>> TracePoints(0x1000, frozenset({0x1040})).dfilter
        '0x1000+1,0x1040+1'
        """
        behind = sorted(self.links | self.returns | self.handlers)
        return ",".join(f"{address:#x}+1" for address in (self.entry, *behind))


def find_trace_points(path: EntryPath) -> TracePoints:
    """The points of a stub that has been analysed.

    :raise AnalysisError: it calls no dispatcher, so that there is no return to be seen.
    """
    dispatcher = path.dispatcher
    if dispatcher is None:
        raise AnalysisError(f"the entry stub at {path.entry:#x} calls no dispatcher, so no return can be seen")
    at_call = path.state_at(dispatcher.call_address)
    registers = at_call.registers if at_call is not None else {}
    kept = frozenset(name for name in CALLEE_SAVED if registers.get(name) == InRegister(name))
    return TracePoints(
        path.entry,
        frozenset({dispatcher.return_address}),
        kept,
        _find_exits(path),
        _find_links(path),
        all(each.registers["rax"].kind == "result" for each in path.exits if each.after_dispatch),
    )


def _find_links(path: EntryPath) -> frozenset[int]:
    """QEMU ends a translation block at a write of CR3, so that the next instruction begins one."""
    writes = (each.address for each in path.cr3_switches if not each.on_exit)
    behind = (min((at for at in path.states if at > write), default=None) for write in writes)
    return frozenset(address for address in behind if address is not None)


def _find_exits(path: EntryPath) -> frozenset[int]:
    """Only a path without branches is sure to pass its one `swapgs`, and to be nobody else's."""
    swaps = [each.address for each in path.swapgs if each.on_exit]
    is_straight = len(path.exits) == 1 and not any(each.on_exit for each in path.comparisons)
    if len(swaps) != 1 or not is_straight or path.doubts:
        return frozenset()
    state = path.state_at(swaps[0])
    return frozenset(swaps) if state is not None and state.stack == "user" else frozenset()
