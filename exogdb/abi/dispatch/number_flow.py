"""Where the dispatcher keeps the number, on every way through its code.

One emulated run shows places that hold the number's value, some of them by chance: 1 is everywhere. This follows
the number itself: a place holds it in front of an instruction if copies of it got there on all ways that lead
there, branches that no run took included. Taken for granted: calls keep what the System V ABI says, write to their
caller's stack only where they were given the address, and stores elsewhere do not hit the stack. Offsets of stack
slots count from rsp at the dispatcher's first instruction.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from exogdb.abi.stub.disassembly import (
    Disassembler,
    ImmediateOperand,
    Instruction,
    MemoryOperand,
    RegisterOperand,
)
from exogdb.abi.stub.interpret import CALLER_SAVED
from exogdb.abi.stub.location import InRegister, Location, OnStack
from exogdb.errors import AnalysisError, MemoryFault
from exogdb.x86.memory import ReadableMemory

__all__ = ["NumberFlow", "follow_number"]

_WORD = 8
_MOST_INSTRUCTIONS = 6000
_ARGUMENT_AREA = 64  # bytes above rsp at a call that may be the callee's arguments, and its own to change
_ENDS = frozenset({"ret", "retf", "hlt", "ud2", "int3", "iretq", "sysretq"})
_READS_ONLY = frozenset({"cmp", "test", "bt", "nop", "endbr64"})


@dataclass
class _State:
    """`stack`: registers that point into the stack, by offset. `holders`: registers and slots with the number."""

    stack: dict[str, int]
    holders: set[str | int]

    def copy(self) -> "_State":
        return _State(dict(self.stack), set(self.holders))

    def join(self, other: "_State") -> "_State":
        stack = {name: at for name, at in self.stack.items() if other.stack.get(name) == at}
        return _State(stack, self.holders & other.holders)

    def find(self, operand: MemoryOperand) -> int | None:
        """The offset of the stack slot that `operand` names, without its index; None for other memory."""
        if operand.segment is not None or operand.base not in self.stack:
            return None
        return self.stack[operand.base] + operand.displacement

    def put(self, register: str, stack: int | None = None, *, number: bool = False) -> None:
        self.stack.pop(register, None)
        self.holders.discard(register)
        if stack is not None:
            self.stack[register] = stack
        if number:
            self.holders.add(register)

    def store(self, at: int, size: int | None, *, number: bool = False) -> None:
        """`size` bytes at `at` are written; None: any number of them."""
        end = at + size if size is not None else None
        for slot in [each for each in self.holders if isinstance(each, int)]:
            if slot + _WORD > at and (end is None or slot < end):
                self.holders.discard(slot)
        if number:
            self.holders.add(at)


@dataclass
class NumberFlow:
    """What the walk found. `states` are in front of instructions, `calls` in front of a call, by where it returns.

    `pointed_at` are stack slots whose address the code takes: somebody else may write there.
    """

    disassembler: Disassembler
    states: dict[int, _State] = field(default_factory=dict)
    calls: dict[int, _State] = field(default_factory=dict)
    pointed_at: set[int] = field(default_factory=set)

    def find(self, address: int, start: int | None = None, callers: Iterable[int | None] = ()) -> Location | None:
        """Where the number is at `address`; None if nowhere.

        With `start`, in the function that begins there and returns to one of `callers`. None in it is where
        the dispatcher returns to: the function was jumped to.
        """
        if start is None:
            return self._locate([self.states.get(address)])
        return self._locate([self._enter(start, address, caller) for caller in callers])

    def _enter(self, start: int, address: int, caller: int | None) -> _State | None:
        """The state at `address` in the function at `start`, which straight-line code leads to."""
        before = self.states.get(start) if caller is None else self.calls.get(caller)
        if before is None:
            return None
        state = before.copy()
        if caller is not None and "rsp" in state.stack:
            state.stack["rsp"] -= _WORD
        at = start
        try:
            while at < address:
                instruction = self.disassembler.at(at)
                if instruction.mnemonic in ("call", "jmp", *_ENDS) or instruction.is_conditional:
                    return None
                _apply(instruction, state, self.pointed_at)
                at = instruction.next
        except (MemoryFault, AnalysisError):
            return None
        return state if at == address else None

    def _locate(self, states: Collection[_State | None]) -> Location | None:
        places = [_to_locations(state, self.pointed_at) if state is not None else set() for state in states]
        common = set.intersection(*places) if places else set()
        return min(common, key=lambda where: (isinstance(where, OnStack), repr(where)), default=None)


def _to_locations(state: _State, pointed_at: Collection[int]) -> set[Location]:
    found: set[Location] = {InRegister(each) for each in state.holders if isinstance(each, str)}
    rsp = state.stack.get("rsp")
    if rsp is not None:
        slots = [each for each in state.holders if isinstance(each, int) and each not in pointed_at]
        found |= {OnStack(slot - rsp) for slot in slots if slot >= rsp}
    return found


def follow_number(
    memory: ReadableMemory,
    start: int,
    number: Location,
    leads: Mapping[int, Collection[int]],
    ends: Collection[int],
) -> NumberFlow | None:
    """Follow `number` from the dispatcher's first instruction at `start`; None if not all of the code can be.

    `leads` has by the address behind an indirect jump where it was seen to go. The walk does not go on into
    functions, which are called, nor past the addresses in `ends`, which are handlers that are jumped to.
    """
    if not isinstance(number, InRegister | OnStack):
        return None
    flow = NumberFlow(Disassembler(memory))
    begin = _State({"rsp": 0}, {number.name if isinstance(number, InRegister) else number.offset})
    waiting = deque([(start, begin)])
    while waiting:
        address, arriving = waiting.popleft()
        known = flow.states.get(address)
        joined = arriving if known is None else known.join(arriving)
        if joined == known:
            continue
        flow.states[address] = joined
        if address in ends:
            continue
        if len(flow.states) > _MOST_INSTRUCTIONS:
            return None
        try:
            instruction = flow.disassembler.at(address)
        except (MemoryFault, AnalysisError):
            return None
        following = _advance(instruction, joined.copy(), flow, leads)
        if following is None:
            return None
        waiting += following
    return flow


def _advance(
    instruction: Instruction, state: _State, flow: NumberFlow, leads: Mapping[int, Collection[int]]
) -> list[tuple[int, _State]] | None:
    """Where execution goes, and in which states; None if the code does not tell."""
    if instruction.mnemonic in _ENDS:
        return []
    if instruction.mnemonic == "call":
        known = flow.calls.get(instruction.next)
        flow.calls[instruction.next] = state.copy() if known is None else known.join(state)
        _apply_call(state)
        return [(instruction.next, state)]
    if instruction.mnemonic == "jmp":
        targets = [instruction.target] if instruction.target is not None else leads.get(instruction.next)
        return None if targets is None else [(target, state.copy()) for target in targets]
    if instruction.is_conditional:
        if instruction.target is None:
            return None
        return [(instruction.target, state.copy()), (instruction.next, state)]
    _apply(instruction, state, flow.pointed_at)
    return [(instruction.next, state)]


def _apply_call(state: _State) -> None:
    for name in CALLER_SAVED:
        state.put(name)
    rsp = state.stack.get("rsp")
    if rsp is not None:
        state.store(rsp, _ARGUMENT_AREA)


def _apply(instruction: Instruction, state: _State, pointed_at: set[int]) -> None:
    """Change `state` to what it is behind `instruction`, which goes on to the next one."""
    match instruction.mnemonic, instruction.operands:
        case "mov", (RegisterOperand(to, 8), RegisterOperand(source, 8)):
            state.put(to, state.stack.get(source), number=source in state.holders)
        case "mov", (RegisterOperand(to, 8), MemoryOperand(index=None) as source):
            state.put(to, number=state.find(source) in state.holders)
        case "mov", (MemoryOperand(index=None, size=8) as to, RegisterOperand(source, 8)) if (
            at := state.find(to)
        ) is not None:
            state.store(at, _WORD, number=source in state.holders)
        case "lea", (RegisterOperand(to, 8), MemoryOperand(index=None) as source):
            at = state.find(source)
            if at is not None and to not in ("rsp", "rbp"):
                pointed_at.add(at)
            state.put(to, at)
        case "add" | "sub", (RegisterOperand(to, 8), ImmediateOperand(by)) if to in state.stack:
            state.put(to, state.stack[to] + (by if instruction.mnemonic == "add" else -by))
        case "push", (source,):
            _push(state, isinstance(source, RegisterOperand) and source.name in state.holders)
        case "pop", (RegisterOperand(to, 8),):
            _pop(state, to)
        case "leave", _:
            state.put("rsp", state.stack.get("rbp"))
            _pop(state, "rbp")
        case _:
            _forget_written(instruction, state)


def _push(state: _State, number: bool) -> None:
    if "rsp" in state.stack:
        state.stack["rsp"] -= _WORD
        state.store(state.stack["rsp"], _WORD, number=number)


def _pop(state: _State, to: str) -> None:
    rsp = state.stack.get("rsp")
    state.put(to, number=rsp in state.holders)
    if rsp is not None and to != "rsp":
        state.stack["rsp"] = rsp + _WORD


def _forget_written(instruction: Instruction, state: _State) -> None:
    target = instruction.operands[0] if instruction.operands else None
    if isinstance(target, MemoryOperand) and instruction.mnemonic not in _READS_ONLY:
        at = state.find(target)
        is_open = target.index is not None or instruction.text.startswith("rep")
        if at is not None:
            state.store(at, None if is_open else max(target.size, 1))
    for name in instruction.writes:
        state.put(name)
