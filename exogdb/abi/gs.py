"""Which GS base is the kernel's, and whether `swapgs` has run as often as it must have.

Two facts are put side by side. What must be: CPL, and how many `swapgs` lie between SYSCALL and RIP. What is:
which of IA32_GS_BASE (active) and IA32_KERNEL_GS_BASE (waiting) holds a kernel address. Where they agree, the
state is known; where they contradict each other, the kernel runs on the user's GS base or the other way round.

    SYSCALL ---- entry window ----> swapgs ---- kernel ----> swapgs ---- exit window ----> SYSRET
                 user's is active            kernel's is active          user's is active

SWAPGS is not the only way to another base. WRMSR sets the active one, and so does WRGSBASE, with CR4.FSGSBASE at
any CPL, to any canonical address. A selector loaded into GS takes the base out of its descriptor; with the null
selector Intel's CPUs set it to 0, AMD's before Zen 2 leave it as it was (CPUID.80000021H:EAX[6] tells, from Zen 3
on). A program that loads one changes its own base only, because the kernel's waits meanwhile. Where CR4.FRED is
set nothing here holds: the CPU exchanges the bases itself at every change between ring 3 and ring 0, and SWAPGS
raises #UD.

Source: Intel SDM Vol. 2B, SWAPGS; AMD APM Vol. 3, SWAPGS; Vol. 2, FS and GS Registers in 64-Bit Mode.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from exogdb.abi.gs_interrupt import InterruptWindows
from exogdb.abi.stub.disassembly import Disassembler, Instruction
from exogdb.abi.stub.graph import explore, find_reachable, reverse_edges
from exogdb.errors import AnalysisError, MemoryFault
from exogdb.x86.word import MASK_64

__all__ = ["GsPath", "GsReport", "GsState", "diagnose_gs", "find_gs_path"]

PATH_ENDS = frozenset(
    {"sysret", "sysretq", "sysexit", "iret", "iretd", "iretq", "ret", "retf", "retfq", "hlt", "int3", "ud2"}
)
MOST_INSTRUCTIONS = 4096
MOST_SWAPS = 4


class GsState(Enum):
    """The answer, in the words of the screens."""

    USER = "user"
    KERNEL = "kernel"
    ENTRY_WINDOW = "entry window (swapgs not yet executed)"
    EXIT_WINDOW = "exit window"
    DOUBLE_SWAPPED = "double-swapped"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class GsPath:
    """The code between SYSCALL and the return to ring 3, in its own function.

    `swaps` has, for the address of every instruction, how many `swapgs` ran since SYSCALL before it (more than
    one count if paths with different counts meet there). `calls` has the counts at which the path calls other
    kernel code. `before_call` has the (address, count) pairs from which a call can still be reached, `after_call`
    those that can be reached from a call's return.
    """

    entry: int
    swaps: dict[int, frozenset[int]]
    calls: frozenset[int]
    before_call: frozenset[tuple[int, int]]
    after_call: frozenset[tuple[int, int]]


Node = tuple[int, int]


def _successors(instruction: Instruction, count: int) -> list[Node]:
    if instruction.mnemonic in PATH_ENDS:
        return []
    if instruction.mnemonic == "swapgs":
        return [(instruction.next, count + 1)]
    target = [] if instruction.target is None else [(instruction.target & MASK_64, count)]
    if instruction.mnemonic == "jmp":
        return target
    following = [(instruction.next, count)]
    return following + target if instruction.is_conditional else following


def find_gs_path(code: Disassembler, entry: int, jumped_calls: Mapping[int, int] | None = None) -> GsPath:
    """Follow the code from `entry` (what LSTAR holds) and count `swapgs`; calls are stepped over.

    `jumped_calls` are instructions that call without being a CALL, each with the address that it returns to.
    Code that cannot be read or decoded ends a path there. The guest is only read.
    :raise AnalysisError: not even the first instruction can be read.
    """
    calls: set[Node] = set()

    def find_following(node: Node) -> list[Node]:
        try:
            instruction = code.at(node[0])
        except (AnalysisError, MemoryFault) as error:
            if node[0] == entry:
                raise AnalysisError(
                    f"the system-call entry at {entry:#x} cannot be read: {error}", entry
                ) from error
            return []
        returns_to = (jumped_calls or {}).get(node[0])
        if instruction.mnemonic == "call" or returns_to is not None:
            calls.add(node)
        if returns_to is not None:
            return [(returns_to, node[1])]
        return [] if node[1] > MOST_SWAPS else _successors(instruction, node[1])

    edges = explore([(entry, 0)], find_following, MOST_INSTRUCTIONS)
    swaps: dict[int, frozenset[int]] = {}
    for address, count in edges:
        swaps[address] = swaps.get(address, frozenset()) | {count}
    returns = [node for call in calls for node in edges[call]]
    return GsPath(
        entry,
        swaps,
        frozenset(count for _, count in calls),
        find_reachable(calls, reverse_edges(edges)),
        find_reachable(returns, edges),
    )


@dataclass(frozen=True)
class GsReport:
    """The oracle's answer. `active` is `kernel`, `user` or `unknown`; `kernel` and `user` are the bases by owner.

    `expected` is what CPL and position demand of the active base. `why` is one or two sentences.
    """

    state: GsState
    active: str
    expected: str
    kernel: int | None
    user: int | None
    why: str

    @property
    def is_wrong(self) -> bool:
        """The active base is not the one that code at this place needs."""
        return self.state in (GsState.DOUBLE_SWAPPED, GsState.MISSING)


def _expectation(cpl: int, rip: int, path: GsPath | None) -> tuple[GsState, str]:
    """The state that CPL and position demand, and why."""
    if cpl == 3:
        return GsState.USER, "CPL is 3: user code runs, the kernel's base waits"
    if path is None:
        return GsState.KERNEL, f"CPL is {cpl}, and the system-call entry is not known"
    counts = path.swaps.get(rip)
    if counts is None:
        return GsState.KERNEL, f"CPL is {cpl} and RIP is not in the system-call entry code"
    if len(counts) > 1:
        return GsState.UNKNOWN, "RIP is where paths with different numbers of swapgs meet"
    count = next(iter(counts))
    times = {0: "no swapgs", 1: "one swapgs"}.get(count, f"{count} swapgs")
    where = f"RIP is at {rip:#x} on the system-call path, {times} after SYSCALL"
    if count % 2:
        return GsState.KERNEL, where
    if count == 0 and (rip, count) in path.after_call:
        return GsState.KERNEL, f"{where}, and kernel code was called already"
    if count == 0:
        return GsState.ENTRY_WINDOW, where
    if (rip, count) in path.before_call:
        return GsState.DOUBLE_SWAPPED, f"{where}, and kernel code is still to be called"
    return GsState.EXIT_WINDOW, where


def _observe(gs_base: int, kernel_gs_base: int, is_kernel: Callable[[int], bool | None]) -> str:
    """Which base is active by the look of the two: `kernel`, `user`, or `unknown` when they do not differ."""
    active, waiting = is_kernel(gs_base), is_kernel(kernel_gs_base)
    if active is True and waiting is not True:
        return "kernel"
    if waiting is True and active is not True:
        return "user"
    return "unknown"


def _contradiction(expected: GsState, cpl: int, path: GsPath | None, on_path: bool) -> tuple[GsState, str]:
    """What is wrong when the active base is not the expected one, and why."""
    if expected is GsState.KERNEL:
        even_at_calls = path is not None and bool(path.calls) and all(count % 2 == 0 for count in path.calls)
        if even_at_calls and path is not None and max(path.calls) == 0:
            return GsState.MISSING, "the user's base is active: the entry code calls the kernel without swapgs"
        if on_path or even_at_calls:
            return GsState.DOUBLE_SWAPPED, "the user's base is active although swapgs ran: one swapgs too many"
        return GsState.MISSING, "the user's base is active: this code was entered without swapgs"
    if expected is GsState.EXIT_WINDOW:
        return GsState.DOUBLE_SWAPPED, "the kernel's base is active after the last swapgs: one swapgs too many"
    if cpl == 3:
        return GsState.MISSING, "the kernel's base is active in ring 3: the way out did not run swapgs"
    return GsState.MISSING, "the kernel's base is active before swapgs: the last way out to ring 3 did not run it"


def _in_interrupt_window(rip: int, windows: InterruptWindows | None) -> tuple[GsState, str] | None:
    """Where handlers run on the user's base rightly: the window and why; None anywhere else."""
    if windows is not None and rip in windows.entry:
        return GsState.ENTRY_WINDOW, f"RIP is at {rip:#x} behind an IDT gate, in front of its swapgs"
    if windows is not None and rip in windows.exit:
        return GsState.EXIT_WINDOW, f"RIP is at {rip:#x} behind a swapgs, on the way to IRETQ"
    return None


def _is_shared(rip: int, windows: InterruptWindows | None) -> bool:
    """Whether a handler that was entered from the kernel can be at `rip`."""
    return windows is not None and rip in windows.unswapped


def diagnose_gs(
    cpl: int,
    rip: int,
    gs_base: int,
    kernel_gs_base: int,
    path: GsPath | None,
    is_kernel: Callable[[int], bool | None],
    find_windows: Callable[[], InterruptWindows | None] = lambda: None,
) -> GsReport:
    """Say which base is whose, and whether the right one is active.

    `is_kernel(base)` says whether a base belongs to the kernel, None if that cannot be told (see the caller for
    its evidence). `path` is None when LSTAR or the code behind it cannot be read. `find_windows` follows the code
    behind the IDT's gates, None if that cannot be read; it is asked only where the answer depends on it.
    """
    active = _observe(gs_base, kernel_gs_base, is_kernel)
    expected, why = _expectation(cpl, rip, path)
    is_on_path = path is not None and rip in path.swaps
    if cpl != 3 and not is_on_path and active != "kernel":
        expected, why = _in_interrupt_window(rip, find_windows()) or (expected, why)
    if expected is GsState.EXIT_WINDOW and active == "kernel" and _is_shared(rip, find_windows()):
        expected, why = GsState.KERNEL, f"{why}, but handlers that return to the kernel pass there too"
    if path is None and expected is GsState.KERNEL and active == "user":
        expected, why = GsState.UNKNOWN, f"{why}; the user's base is active, as it must be in front of its swapgs"
    state, active, why = _decide(expected, why, active, cpl, path, is_on_path)
    owners = {"kernel": (gs_base, kernel_gs_base), "user": (kernel_gs_base, gs_base)}
    kernel, user = owners.get(active, (None, None))
    return GsReport(state, active, _OWNERS.get(expected, "user"), kernel, user, why)


_OWNERS = {GsState.KERNEL: "kernel", GsState.DOUBLE_SWAPPED: "kernel", GsState.UNKNOWN: "unknown"}


def _decide(
    expected: GsState, why: str, active: str, cpl: int, path: GsPath | None, is_on_path: bool
) -> tuple[GsState, str, str]:
    """State, owner of the active base, and why, from what must be (`expected`) and what is seen (`active`)."""
    owner = _OWNERS.get(expected, "user")
    if expected is GsState.DOUBLE_SWAPPED:
        return expected, "user" if active == "unknown" else active, why
    if active == "unknown":
        why += "; the two bases do not tell by themselves which is the kernel's"
        if cpl != 3 and (path is None or (owner == "user" and not is_on_path)):
            return GsState.UNKNOWN, active, why
        return expected, owner, why if owner == "unknown" else f"{why}, so whose they are is a guess from there"
    if owner not in ("unknown", active):
        state, problem = _contradiction(expected, cpl, path, is_on_path)
        return state, active, f"{why}; but {problem}"
    return expected, active, why
