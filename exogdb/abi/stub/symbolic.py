"""What a register or a memory cell holds on the system-call path, without running anything.

Values are built from what SYSCALL leaves behind (`UserValue`), from memory that the kernel set up before
(`Loaded`), and from what instructions do to them. Two paths that meet with different values leave `Unknown`.

>>> top = Loaded(Cell("gs", None, 8))          # mov rsp, gs:[8]
>>> after_push = add(top, -8)
>>> str(after_push), split(after_push) == (top, -8)
('gs:[0x8]-0x8', True)
>>> str(UserValue("rip"))
'user rip'
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from exogdb.x86.word import MASK_64, to_signed

__all__ = [
    "WORD",
    "Cell",
    "Constant",
    "Derived",
    "Flag",
    "Gs",
    "GsBase",
    "Loaded",
    "MachineState",
    "Returned",
    "Sum",
    "Unknown",
    "UserValue",
    "Value",
    "add",
    "find_origin",
    "join_states",
    "split",
]

WORD = 8  # bytes


class Gs(Enum):
    """Which of the two GS bases is active, judged by the number of `swapgs` executed since SYSCALL."""

    USER = "user"
    KERNEL = "kernel"
    UNKNOWN = "unknown"

    def swapped(self) -> "Gs":
        """The state after one more `swapgs`."""
        return {Gs.USER: Gs.KERNEL, Gs.KERNEL: Gs.USER, Gs.UNKNOWN: Gs.UNKNOWN}[self]


class Flag(Enum):
    """What the code on the way makes of one bit of RFLAGS. `LEFT`: what SYSCALL left, the user's less FMASK."""

    CLEAR = "clear"
    LEFT = "left"
    SET = "set"
    UNKNOWN = "unknown"

    def join(self, other: "Flag") -> "Flag":
        """What is certain where two paths meet: a flag that one of them clears is still the user's.

        >>> Flag.LEFT.join(Flag.CLEAR).value, Flag.SET.join(Flag.CLEAR).value
        ('left', 'unknown')
        """
        if self is other:
            return self
        return Flag.LEFT if {self, other} == {Flag.LEFT, Flag.CLEAR} else Flag.UNKNOWN


@dataclass(frozen=True)
class UserValue:
    """What the user program's register held when it executed SYSCALL (`rip`: the address behind SYSCALL)."""

    register: str

    def __str__(self) -> str:
        return f"user {self.register}"


@dataclass(frozen=True)
class Constant:
    """A number known from the code alone, 0 to 2**64 - 1."""

    value: int

    def __str__(self) -> str:
        number = to_signed(self.value)
        return f"{self.value:#x}" if number < -0x1000 else f"{number:#x}" if abs(number) > 9 else str(number)


@dataclass(frozen=True)
class Cell:
    """Eight bytes of memory: `base + offset` in the `memory`, `gs` (kernel's) or `user gs` space.

    `base` None means that `offset` is the whole address.
    """

    space: str
    base: "Value | None"
    offset: int

    def __str__(self) -> str:
        prefix = "" if self.space == "memory" else f"{self.space}:"
        inside = f"{self.offset:#x}" if self.base is None else str(add(self.base, self.offset))
        return f"{prefix}[{inside}]"


@dataclass(frozen=True)
class GsBase:
    """The GS base itself, as RDGSBASE gives it: the kernel's or the user's."""

    owner: Gs

    def __str__(self) -> str:
        return f"{self.owner.value}'s GS base"


@dataclass(frozen=True)
class Loaded:
    """What `cell` held before the path began.

    `is_late`: what it held when the dispatcher returned, for a cell that the path had written before.
    """

    cell: Cell
    is_late: bool = False

    def __str__(self) -> str:
        return str(self.cell)


@dataclass(frozen=True)
class Returned:
    """What the function called at `call` left in `register`: its result in rax, anything at all elsewhere."""

    register: str
    call: int

    def __str__(self) -> str:
        return "result" if self.register == "rax" else f"left in {self.register} by the function called"


@dataclass(frozen=True)
class Sum:
    """`base + offset`. Not `exact`: rounded down for alignment, so right only if `base` is aligned as well."""

    base: "Value"
    offset: int
    exact: bool = True

    def __str__(self) -> str:
        sign = "+" if self.offset >= 0 else "-"
        return f"{self.base}{sign}{abs(self.offset):#x}" if self.offset else str(self.base)


@dataclass(frozen=True)
class Derived:
    """`operation` applied to `operands`."""

    operation: str
    operands: "tuple[Value, ...]"

    def __str__(self) -> str:
        return f"{self.operation}({', '.join(map(str, self.operands))})"


@dataclass(frozen=True)
class Unknown:
    """Not followed: set by the instruction at `address` (0: any), or different on the paths that meet there."""

    address: int
    what: str = ""

    def __str__(self) -> str:
        return f"unknown since {self.address:#x}" if self.address else "unknown"


Value: TypeAlias = UserValue | Constant | Loaded | GsBase | Returned | Sum | Derived | Unknown


def add(value: Value, offset: int) -> Value:
    """`value + offset`, in its shortest form."""
    if isinstance(value, Constant):
        return Constant((value.value + offset) & MASK_64)
    base, start = split(value)
    exact = value.exact if isinstance(value, Sum) else True
    total = to_signed(start + offset)
    return base if total == 0 and exact else Sum(base, total, exact)


def split(value: Value) -> tuple[Value, int]:
    """`value` as a base and an offset in bytes from it."""
    return (value.base, value.offset) if isinstance(value, Sum) else (value, 0)


def find_origin(value: Value) -> Value:
    """The one value that `value` was made from by masks, shifts and extensions; itself if there are several.

    >>> str(find_origin(Derived("and", (UserValue("rflags"), Constant(0x3f7fd7)))))
    'user rflags'
    """
    while isinstance(value, Derived):
        inputs = [operand for operand in value.operands if not isinstance(operand, Constant)]
        if len(inputs) != 1:
            break
        value = inputs[0]
    return value


@dataclass
class MachineState:
    """Registers (16 general ones and `cr3`), memory written so far, which GS base is active, and single flags.

    Flags are by name (`IF`, `DF`, `AC`, `NT`); one that is not there is as SYSCALL left it. `left` are the
    cells that were written before the dispatcher ran, which may have changed them.
    """

    registers: dict[str, Value]
    memory: dict[Cell, Value] = field(default_factory=dict)
    gs: Gs = Gs.USER
    compared: tuple[Value, Value] | None = None
    flags: dict[str, Flag] = field(default_factory=dict)
    left: frozenset[Cell] = frozenset()

    def copy(self) -> "MachineState":
        """An independent copy: changing it leaves this state alone."""
        memory, flags = dict(self.memory), dict(self.flags)
        return MachineState(dict(self.registers), memory, self.gs, self.compared, flags, self.left)

    def load(self, cell: Cell) -> Value:
        """What `cell` holds: what was stored there, else a `Loaded` for it.

        >>> state = MachineState({}, {Cell("gs", None, 8): UserValue("rsp")})
        >>> [str(state.load(Cell("gs", None, offset))) for offset in (8, 12, 16)]
        ['user rsp', 'unknown', 'gs:[0x10]']
        """
        known = self.memory.get(cell)
        if known is not None:
            return known
        if any(_is_overlap(cell, WORD, other) for other in self.memory):
            return Unknown(0, str(cell))
        return Loaded(cell, cell in self.left)

    def store(self, cell: Cell, value: Value, size: int, address: int) -> None:
        """`size` bytes at `cell` are written by the instruction at `address`; only whole words keep `value`.

        >>> state = MachineState({}, {Cell("gs", None, 8): UserValue("rsp")})
        >>> state.store(Cell("gs", None, 12), Constant(0), 4, 0x1000)
        >>> str(state.load(Cell("gs", None, 8)))
        'unknown since 0x1000'
        """
        for other in self.memory:
            if other != cell and _is_overlap(cell, size, other):
                self.memory[other] = Unknown(address, str(other))
        self.memory[cell] = value if size == WORD else Unknown(address, str(cell))

    def forget_memory(self) -> None:
        """The dispatcher ran: from here on a cell stands for what it left there."""
        self.left = frozenset(self.memory)
        self.memory.clear()


def _is_overlap(cell: Cell, size: int, other: Cell) -> bool:
    """Whether `size` bytes at `cell` touch the eight at `other`."""
    same = (cell.space, cell.base) == (other.space, other.base)
    return same and cell.offset - WORD < other.offset < cell.offset + size


def join_states(first: MachineState, second: MachineState, address: int) -> MachineState:
    """What is certain at `address` when it can be reached in either state."""

    def join(one: Value, other: Value, what: Cell | str) -> Value:
        return one if one == other else Unknown(address, str(what))

    registers = {name: join(value, second.registers[name], name) for name, value in first.registers.items()}
    memory = dict(first.memory)
    if first.memory != second.memory:
        cells = {*first.memory, *second.memory}
        memory = {cell: join(first.load(cell), second.load(cell), cell) for cell in cells}
    gs = first.gs if first.gs == second.gs else Gs.UNKNOWN
    names = {*first.flags, *second.flags}
    flags = {name: first.flags.get(name, Flag.LEFT).join(second.flags.get(name, Flag.LEFT)) for name in names}
    compared = first.compared if first.compared == second.compared else None
    return MachineState(registers, memory, gs, compared, flags, first.left | second.left)
