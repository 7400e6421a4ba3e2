"""The frame that an entry stub saved, read from a kernel stack, and whether a system call is in progress at all.

::

    IN_STUB     rip is in the entry stub: each register is where the analysis says for that instruction
    IN_CALL     the dispatcher or something that it called runs, or an interrupt on top of it
    BLOCKED     the same on a stack that no CPU runs on
    USER        ring 3: the last frame is still on the kernel stack, but stale
    NO_CALL     the kernel runs for some other reason
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from exogdb.abi.frame_base import find_frame_base
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.abi.stub.location import InRegister
from exogdb.abi.stub.stub_state import (
    BehindGsSlot,
    InGsSlot,
    Lost,
    StubState,
    describe_held,
    find_address,
    read_held,
)
from exogdb.errors import UnavailableError
from exogdb.reading import Reading, Unavailable, Value
from exogdb.x86.memory import ReadableMemory

__all__ = [
    "Moment",
    "SavedFrame",
    "SavedRegister",
    "decode_saved_frame",
    "decode_stub_frame",
    "user_register_names",
]

# Shown in this order: where the user will continue, then the general registers.
_ORDER = (
    "rip", "rflags", "rsp", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cs", "ss",
)  # fmt: skip
_GONE = {"rcx": "SYSCALL put rip there", "r11": "SYSCALL put rflags there"}


class Moment(Enum):
    """When, relative to a system call, the machine stopped."""

    IN_STUB = "stub"
    IN_CALL = "call"
    BLOCKED = "blocked"
    USER = "user"
    NO_CALL = "none"


@dataclass(frozen=True)
class SavedRegister:
    """One of the user's registers. `address` is where it is in memory, None if it is in a register or unknown."""

    name: str
    value: Value
    address: int | None
    where: str


@dataclass(frozen=True)
class SavedFrame:
    """The user's registers during a call. `base` is the frame's lowest address, None before there is a frame."""

    base: int | None
    registers: tuple[SavedRegister, ...]

    def find(self, name: str) -> SavedRegister | None:
        """The register called `name`, if the frame can say anything of it."""
        return next((register for register in self.registers if register.name == name), None)


def user_register_names(path: EntryPath) -> tuple[str, ...]:
    """The user registers that the stub saves, in the order of the screens; rsp is among them always."""
    kept = {slot.holds for slot in path.frame.slots} | {
        name for slot in path.frame.slots for name in slot.restored_to if name in ("cs", "ss")
    }
    elsewhere = {name for name in _ORDER if name not in ("rcx", "r11") and _find_per_cpu(path, name) is not None}
    return tuple(name for name in _ORDER if name in kept | elsewhere or name == "rsp")


def _find_per_cpu(path: EntryPath, name: str) -> InGsSlot | BehindGsSlot | None:
    """Where in the per-CPU block, or behind a pointer in it, the user's register is during the call."""
    dispatcher = path.dispatcher
    state = path.state_at(dispatcher.return_address) if dispatcher is not None else None
    held = state.registers.get(name) if state is not None else None
    if isinstance(held, InGsSlot | BehindGsSlot):
        return held
    return InGsSlot(path.user_rsp_slot) if name == "rsp" and path.user_rsp_slot is not None else None


def decode_saved_frame(
    path: EntryPath, top: int, user_rsp: Value | None, gs_base: int | None, memory: ReadableMemory
) -> SavedFrame:
    """The frame below `top`, the kernel stack's top, as it is while the dispatcher runs.

    What is not in the frame but in the per-CPU block (often user rsp) is taken from there with the kernel's
    `gs_base`. For a process that no CPU runs there is none; then `user_rsp` is what the kernel keeps of it.
    """
    base = find_frame_base(path, top)
    registers = []
    for name in user_register_names(path):
        slot = path.frame.find_slot(name) or path.frame.find_restored(name)
        if slot is not None:
            registers.append(_read_slot(name, base + slot.offset, f"frame+{slot.offset:#x}", memory))
        elif name == "rsp" and user_rsp is not None:
            registers.append(SavedRegister(name, user_rsp, None, "process"))
        else:
            registers.append(_read_per_cpu(name, _find_per_cpu(path, name), gs_base, memory))
    return SavedFrame(base, tuple(registers))


def _read_per_cpu(
    name: str, held: InGsSlot | BehindGsSlot | None, gs_base: int | None, memory: ReadableMemory
) -> SavedRegister:
    if held is None:
        return SavedRegister(name, Unavailable("the stub does not save it"), None, "-")
    where = describe_held(held)
    if gs_base is None:
        why = f"{where} belongs to what the CPU runs now; the kernel keeps it elsewhere meanwhile"
        return SavedRegister(name, Unavailable(why), None, "-")
    try:
        address = find_address(held, {}, gs_base, memory)
    except UnavailableError as error:
        return SavedRegister(name, Unavailable(error.reason), None, where)
    assert address is not None
    return _read_slot(name, address, where, memory)


def _read_slot(name: str, address: int, where: str, memory: ReadableMemory) -> SavedRegister:
    address %= 1 << 64
    try:
        value: Value = Reading(int.from_bytes(memory.read(address, 8), "little"), "memory")
    except UnavailableError as error:
        value = Unavailable(error.reason)
    return SavedRegister(name, value, address, where)


def decode_stub_frame(
    state: StubState,
    base: int | None,
    registers: Mapping[str, int],
    gs_base: int | None,
    memory: ReadableMemory,
) -> SavedFrame:
    """The user's registers at one instruction of the stub, with the CPU's `registers` as they are there."""
    found = [_read_held(name, state, registers, gs_base, memory) for name in _ORDER if name in state.registers]
    return SavedFrame(base, tuple(found))


def _read_held(
    name: str,
    state: StubState,
    registers: Mapping[str, int],
    gs_base: int | None,
    memory: ReadableMemory,
) -> SavedRegister:
    held = state.registers[name]
    if name in _GONE and not state.after_dispatch:
        return SavedRegister(name, Unavailable(_GONE[name]), None, "-")
    if isinstance(held, Lost):
        return SavedRegister(name, Unavailable(held.reason), None, "-")
    try:
        value = read_held(held, registers, gs_base, memory)
        address = find_address(held, registers, gs_base, memory)
    except UnavailableError as error:
        return SavedRegister(name, Unavailable(error.reason), None, describe_held(held))
    source = "gdb" if isinstance(held, InRegister) else "memory"
    return SavedRegister(name, Reading(value, source), address, describe_held(held))
