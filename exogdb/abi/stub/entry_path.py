"""What the analysis of a system-call entry stub found: one immutable result that everything else reads.

::

    EntryPath
      swapgs, cr3_switches, stack      where the machine changes sides
      frame: FrameLayout               what the stub saves and where
      dispatcher: Dispatcher | None    whom it calls, and how number and arguments get there
      exits: tuple[Exit]               how each SYSRET or IRETQ gives the registers back
      states: {address: StubState}     where each user register is at every instruction
      doubts                           what the code did not tell, one sentence each

Offsets and sizes are in bytes. Addresses are virtual.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from exogdb.abi.stub.location import Location
from exogdb.abi.stub.stub_state import StubState
from exogdb.abi.stub.symbolic import Gs, Value

__all__ = [
    "ARGUMENT_REGISTERS",
    "NUMBER_REGISTER",
    "Comparison",
    "Cr3Switch",
    "Dispatcher",
    "EntryPath",
    "Exit",
    "FrameLayout",
    "FrameSlot",
    "GsAccess",
    "KernelStack",
    "Parameter",
    "RegisterReturn",
    "SwapGs",
]

NUMBER_REGISTER = "rax"  # System V ABI, x86-64 supplement, A.2.1
ARGUMENT_REGISTERS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")


@dataclass(frozen=True)
class SwapGs:
    """A `swapgs`; `before` is which GS base was active in front of it, `on_exit` whether it follows the call."""

    address: int
    before: Gs
    on_exit: bool


@dataclass(frozen=True)
class GsAccess:
    """A load or store relative to the GS base, and whose base was active there."""

    address: int
    offset: int
    is_store: bool
    active: Gs


@dataclass(frozen=True)
class Cr3Switch:
    """A write of CR3 and the value written."""

    address: int
    value: Value
    on_exit: bool

    @property
    def source(self) -> str:
        """Where the value comes from, as the code says it."""
        return str(self.value)


@dataclass(frozen=True)
class Comparison:
    """A conditional branch: where, what was compared (None if not followed), and where it goes when taken."""

    address: int
    compared: tuple[Value, Value] | None
    target: int
    on_exit: bool


@dataclass(frozen=True)
class KernelStack:
    """Where the stub gets the kernel stack: `top` is rsp's value before the first push.

    `gs_slot` is the per-CPU slot that holds it, None if it comes from elsewhere. `loaded_at` is the instruction
    that changes rsp, None if the stub never leaves the user's stack. `is_kept`: the top is still to be found there
    during the call; not where the stub exchanges it for the user's rsp.
    """

    top: Value
    gs_slot: int | None
    loaded_at: int | None
    is_kept: bool = True


@dataclass(frozen=True)
class FrameSlot:
    """Eight bytes of the saved frame.

    `offset` is from the frame's base (its lowest address). `holds` is the user register saved there (`rip`,
    `rflags`, `rax`...), None for anything else; `value` says what the stub stores; `restored_to` are the user
    registers that get their value back from here. `how` is `push` or `mov`, at the instruction `stored_at`.
    `is_constant`: the code alone tells the number that is stored.
    """

    offset: int
    holds: str | None
    value: str
    how: str
    stored_at: int | None
    restored_to: tuple[str, ...]
    is_constant: bool = False

    @property
    def name(self) -> str:
        """The user register whose value the slot is, as seen by whoever returns: `rip`, `cs`, `rax`..."""
        if self.holds in self.restored_to or not self.restored_to:
            return self.holds or "-"
        return self.restored_to[0]


@dataclass(frozen=True)
class FrameLayout:
    """The saved frame: `size` bytes, its base `base_below_top` bytes below the kernel stack's top.

    `scratch` are slots below the base that the stub pushed for the call alone (stack arguments, padding).
    """

    slots: tuple[FrameSlot, ...]
    size: int
    base_below_top: int
    scratch: tuple[FrameSlot, ...] = ()

    def find_slot(self, register: str) -> FrameSlot | None:
        """The slot that holds the user's `register` while the call is in progress.

        Of several the one that gives back nothing else: rip's own rather than that of rcx, where SYSCALL put it.

        >>> twice = [FrameSlot(at, "rip", "user rip", "push", 0, (to,)) for at, to in ((0, "rcx"), (8, "rip"))]
        >>> FrameLayout(tuple(twice), 16, 16).find_slot("rip").offset
        8
        """
        holding = [slot for slot in self.slots if slot.holds == register]
        both = [slot for slot in holding if register in slot.restored_to]
        return min(both or holding, key=lambda slot: len(slot.restored_to), default=None)

    def name_of(self, slot: FrameSlot) -> str:
        """`slot.name`, but where that register has a slot of its own, another that comes back from here.

        >>> back = [("rcx", "rip"), ("rip",)]
        >>> twice = [FrameSlot(8 * place, "rip", "user rip", "push", 0, to) for place, to in enumerate(back)]
        >>> layout = FrameLayout(tuple(twice), 16, 16)
        >>> [layout.name_of(slot) for slot in layout.slots]
        ['rcx', 'rip']
        """
        if self.find_slot(slot.name) in (slot, None):
            return slot.name
        return next((name for name in slot.restored_to if name != slot.name), slot.name)

    def find_restored(self, register: str) -> FrameSlot | None:
        """The slot from which the user's `register` comes back: where to write to change it."""
        restored = [slot for slot in self.slots if register in slot.restored_to]
        own = [slot for slot in restored if slot.holds == register]
        return min(own or restored, key=lambda slot: len(slot.restored_to), default=None)


@dataclass(frozen=True)
class Parameter:
    """What the dispatcher finds in one of the six argument registers of the System V ABI.

    `user` is the user register whose value it is; `frame_offset` is set for a pointer into the saved frame.
    """

    register: str
    value: str
    user: str | None
    frame_offset: int | None


@dataclass(frozen=True)
class Dispatcher:
    """The function that the stub calls.

    `address` is None when the call goes through memory or a register (`target` says it as written). `number` and
    `arguments` say where each is at the function's first instruction, None where the stub lost it.
    `rsp_below_top` is the stack depth in bytes right before the call: a multiple of 16 keeps the alignment that
    the ABI asks for if the stack's top has it; `realigned` if the stub aligns rsp itself.
    """

    address: int | None
    target: str
    call_address: int
    return_address: int
    rsp_below_top: int | None
    realigned: bool
    parameters: tuple[Parameter, ...]
    number: Location | None
    arguments: tuple[Location | None, ...]

    @property
    def frame_pointer(self) -> Parameter | None:
        """The parameter that points into the saved frame, if there is one."""
        return next((each for each in self.parameters if each.frame_offset is not None), None)

    @property
    def is_aligned(self) -> bool | None:
        """Whether rsp is a multiple of 16 at the call, given that the stack's top is; None if not known."""
        if self.realigned:
            return True
        return None if self.rsp_below_top is None else self.rsp_below_top % 16 == 0


@dataclass(frozen=True)
class RegisterReturn:
    """What the user finds in one register after the return.

    `kind` is `restored` (from `frame_offset` or `gs_slot` or other memory), `untouched` (never changed, or kept
    by the dispatcher as the ABI says), `result` (the dispatcher's), `constant`, `leaked` (whatever the kernel left
    there), `user` (another user register's value) or `unknown`. `value` says the same as the code does.
    """

    kind: str
    value: str
    frame_offset: int | None = None
    gs_slot: int | None = None


@dataclass(frozen=True)
class Exit:
    """One way back to user space. `kind`: `sysret`, `iret` or `sysexit`; `gs`: whose GS base is active there."""

    address: int
    kind: str
    gs: Gs
    after_dispatch: bool
    registers: Mapping[str, RegisterReturn]


@dataclass(frozen=True)
class EntryPath:
    """The whole path, from the instruction LSTAR points at to every return to user space.

    `gs_saved` is what the per-CPU slots hold during the call that the stub stores to: a user register, or None for
    a constant. `flow_in` says what follows each instruction on the way from `entry` to the dispatcher's call,
    `flow_out` the same from its return. `profile` names the file that overrode parts of it, empty if none did.
    """

    entry: int
    swapgs: tuple[SwapGs, ...]
    gs_accesses: tuple[GsAccess, ...]
    cr3_switches: tuple[Cr3Switch, ...]
    comparisons: tuple[Comparison, ...]
    user_stack_uses: tuple[int, ...]
    user_rsp_slot: int | None
    stack: KernelStack | None
    frame: FrameLayout
    dispatcher: Dispatcher | None
    exits: tuple[Exit, ...]
    states: Mapping[int, StubState]
    doubts: tuple[str, ...]
    gs_saved: Mapping[int, str | None]
    flow_in: Mapping[int, list[int]]
    flow_out: Mapping[int, list[int]]
    profile: str = ""

    @property
    def kernel_rsp_slot(self) -> int | None:
        """The per-CPU slot that holds the kernel stack's top, as an offset from the kernel's GS base."""
        return self.stack.gs_slot if self.stack is not None else None

    def state_at(self, address: int) -> StubState | None:
        """Where everything is in front of the stub's instruction at `address`; None outside the stub."""
        return self.states.get(address)
