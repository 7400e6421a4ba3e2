"""Where interrupt and exception handlers may run on the user's GS base: before their `swapgs`, and behind it.

A handler that was entered from ring 3 starts with the user's base and ends with it; one that was entered from the
kernel has the kernel's all the time, and must not exchange them. So handlers run `swapgs` on one of two ways, and
the number of them between the gate and RIP does not say which base must be active. What does is where RIP stands::

    gate --- entry window ---> swapgs --- call of the kernel --- swapgs --- exit window ---> IRETQ
                 `------------------------->                 `------------>

In the entry window a `swapgs` is ahead and no other kernel code was called yet; in the exit window IRETQ is ahead,
with neither in between. A function that is called only to run `swapgs` (Linux: `error_entry`) belongs to the way.

Source: Intel SDM Vol. 2B, SWAPGS; AMD APM Vol. 3, SWAPGS.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from exogdb.abi.stub.disassembly import Disassembler, Instruction
from exogdb.abi.stub.graph import explore, find_reachable, reverse_edges
from exogdb.errors import AnalysisError, MemoryFault
from exogdb.x86.word import MASK_64

__all__ = ["InterruptWindows", "find_interrupt_windows"]

RETURNS = frozenset({"iret", "iretd", "iretq", "sysret", "sysretq", "sysexit"})
PATH_ENDS = RETURNS | {"ret", "retf", "retfq", "hlt", "int3", "ud2"}
MOST_INSTRUCTIONS = 4096
MOST_IN_A_CALL = 64


@dataclass(frozen=True)
class InterruptWindows:
    """Addresses of instructions behind the IDT's gates. In `entry` and `exit` the user's base may be active.

    `entry`: a `swapgs` is ahead; `exit`: a `swapgs` was run and the return is ahead. `unswapped`: a handler can be
    there without having run any, as when it was entered from the kernel.
    """

    entry: frozenset[int]
    exit: frozenset[int]
    unswapped: frozenset[int]


class _Ways:
    """The code behind the gates, read once, and the ways through it that one question or another needs."""

    def __init__(self, code: Disassembler) -> None:
        self._code = code
        self._known: dict[int, Instruction | None] = {}

    def at(self, address: int) -> Instruction | None:
        """The instruction at `address`, None where the code cannot be read or decoded."""
        if address not in self._known:
            try:
                self._known[address] = self._code.at(address)
            except (AnalysisError, MemoryFault):
                self._known[address] = None
        return self._known[address]

    def is_one_of(self, address: int, mnemonics: Iterable[str]) -> bool:
        """Whether the instruction at `address` is there and has one of these mnemonics."""
        instruction = self.at(address)
        return instruction is not None and instruction.mnemonic in mnemonics

    def over_calls(self, address: int) -> list[int]:
        """What can run next, with calls stepped over."""
        instruction = self.at(address)
        if instruction is None or instruction.mnemonic in PATH_ENDS:
            return []
        target = [] if instruction.target is None else [instruction.target & MASK_64]
        if instruction.mnemonic == "jmp":
            return target
        return [instruction.next, *(target if instruction.is_conditional else [])]

    def over_calls_unswapped(self, address: int) -> list[int]:
        """The same before `swapgs`."""
        return [] if self.is_one_of(address, {"swapgs"}) else self.over_calls(address)

    def up_to_swap(self, address: int) -> list[int]:
        """What can run next before `swapgs` or a call."""
        ends = {"swapgs", "call"}
        return [] if self.is_one_of(address, ends) else self.over_calls(address)

    def into_swap(self, address: int) -> list[int]:
        """The same, and into a function that runs `swapgs` itself."""
        instruction = self.at(address)
        if instruction is None or instruction.mnemonic != "call" or instruction.target is None:
            return self.up_to_swap(address)
        callee = instruction.target & MASK_64
        inside = explore([callee], self.up_to_swap, MOST_IN_A_CALL)
        return [callee] if any(self.is_one_of(each, {"swapgs"}) for each in inside) else []


def _leading_to(edges: dict[int, list[int]], ends: Iterable[int]) -> frozenset[int]:
    return find_reachable(ends, reverse_edges(edges))


def find_interrupt_windows(
    code: Disassembler, handlers: Iterable[int], only_from_user: Iterable[int] = ()
) -> InterruptWindows:
    """Follow the code behind the gates, whose handlers' addresses are given. The guest is only read.

    `only_from_user` are other entries, which user programs alone get to: the user's base is active there up to
    `swapgs`, if there is one. Code that cannot be read or decoded ends a way there.
    """
    ways, only_from_user = _Ways(code), list(only_from_user)
    handlers = [*handlers, *only_from_user]
    before = explore(handlers, ways.into_swap, MOST_INSTRUCTIONS)
    swaps_on_entry = [address for address in before if ways.is_one_of(address, {"swapgs"})]
    everything = explore(handlers, ways.over_calls, MOST_INSTRUCTIONS)
    behind_swaps = [
        following
        for address in everything
        if ways.is_one_of(address, {"swapgs"})
        for following in ways.over_calls(address)
    ]
    after = explore(behind_swaps, ways.up_to_swap, MOST_INSTRUCTIONS)
    unswapped = explore(handlers, ways.over_calls_unswapped, MOST_INSTRUCTIONS)
    returns = [address for address in after if ways.is_one_of(address, RETURNS)]
    entry = (
        _leading_to(before, swaps_on_entry)
        | explore(only_from_user, ways.over_calls_unswapped, MOST_INSTRUCTIONS).keys()
    )
    return InterruptWindows(entry, _leading_to(after, returns), frozenset(unswapped))
