"""Which page tables the kernel runs with, and which its user programs: with page-table isolation these are two.

What the entry stub writes into CR3 tells. Nothing in the guest changes.
"""

from dataclasses import dataclass

from exogdb.abi.stub.entry_path import EntryPath
from exogdb.abi.stub.evaluate import evaluate
from exogdb.errors import UnavailableError
from exogdb.reading import Reading, Unavailable, Value, note
from exogdb.target.cpus import Cpu
from exogdb.target.page_tables import AddressSpace
from exogdb.target.registers import read_register

__all__ = ["PageTables", "find_page_tables"]


@dataclass(frozen=True)
class PageTables:
    """The tables of one CPU. `user` is None where kernel and user programs share the kernel's."""

    kernel: AddressSpace | Unavailable
    user: AddressSpace | Unavailable | None


def find_page_tables(
    cpu: Cpu, loaded: AddressSpace, kernel_gs: Value, path: EntryPath | Unavailable
) -> PageTables:
    """The tables of `cpu`, which has `loaded` in CR3 now; `path` is the code behind its LSTAR.

    In user mode and in the stub the kernel's tables are those that the stub would load; else they are loaded. The
    user's are loaded until then.
    """
    switches = [] if isinstance(path, Unavailable) else [each for each in path.cr3_switches if not each.on_exit]
    if isinstance(path, Unavailable) or not switches:
        return PageTables(loaded, None)
    try:
        in_user_mode = read_register(cpu, "cs") & 3 == 3
        state = None if in_user_mode else path.state_at(read_register(cpu, "rip"))
    except UnavailableError as error:
        return PageTables(note(error), note(error))
    outside = not in_user_mode and state is None
    before = state is not None and not state.after_dispatch and state.address <= switches[0].address
    gs_base = kernel_gs.value if isinstance(kernel_gs, Reading) and not outside else None
    try:
        cr3 = evaluate(switches[0].value, {"cr3": loaded.cr3}, gs_base, loaded)
    except UnavailableError as error:
        if outside:
            return PageTables(loaded, _no_user_tables(cpu))
        return PageTables(Unavailable(f"the kernel's page tables are not loaded: {note(error).reason}"), loaded)
    if not cr3:  # the stub tests for that, and switches to nothing
        return PageTables(loaded, None)
    return PageTables(loaded.through(cr3), loaded if in_user_mode or before else _no_user_tables(cpu))


def _no_user_tables(cpu: Cpu) -> Unavailable:
    return Unavailable(f"CPU {cpu.index} is in the kernel: the user's page tables show while a program runs")
