"""Changing what a user program will get back from a system call: where the new value must be written.

A user register can be in several places at once: still in a CPU register, already in the frame, and in the
per-CPU block. All of those that the rest of the path reads are written, or the edit is refused.
"""

from dataclasses import dataclass

from exogdb.abi.frame import Moment
from exogdb.abi.stub.entry_path import ARGUMENT_REGISTERS, EntryPath
from exogdb.abi.stub.location import InFrame
from exogdb.abi.stub.stub_state import InGsSlot, StubState
from exogdb.errors import UsageError
from exogdb.x86.address import is_canonical, is_upper_half
from exogdb.x86.rflags import decode_rflags, rflags_after_sysret
from exogdb.x86.word import MASK_64

__all__ = ["EDITABLE", "Edit", "find_user_register", "plan_edit", "warn_of_edit"]

_RETURNED_FLAGS = rflags_after_sysret(MASK_64)
EDITABLE = ("rip", "rsp", "rflags", *(f"arg{number}" for number in range(1, 7)), "ret")


@dataclass(frozen=True)
class Edit:
    """`value` goes to every one of `addresses` (eight bytes each) and into every CPU register of `registers`."""

    name: str
    value: int
    addresses: tuple[int, ...]
    registers: tuple[str, ...]


def find_user_register(name: str) -> str:
    """The user register that `name` (one of `EDITABLE`) means.

    >>> find_user_register("arg4"), find_user_register("ret")
    ('r10', 'rax')

    :raise UsageError: it means none.
    """
    if name not in EDITABLE:
        raise UsageError(f"{name!r} cannot be set: choose one of {', '.join(EDITABLE)}")
    if name == "ret":
        return "rax"
    return ARGUMENT_REGISTERS[int(name[3:]) - 1] if name.startswith("arg") else name


def plan_edit(
    name: str,
    value: int,
    path: EntryPath,
    moment: Moment,
    base: int | None,
    state: StubState | None,
    gs_base: int | None,
    linear_bits: int,
    rip: int,
) -> Edit:
    """Where to write `value` for `name`.

    `base` is where the frame is or will be, None if not known; `state` is the stub's at rip, None outside it.

    :raise UsageError: it would have no effect, or not the one that was asked for, or SYSRET would fault on it.
    """
    register = find_user_register(name)
    if moment in (Moment.USER, Moment.NO_CALL):
        raise UsageError(f"{name} was not set: no system call is in progress")
    if register == "rip" and not is_canonical(value, linear_bits):
        raise UsageError(
            f"rip was not set: {value:#x} is not canonical, and Intel's SYSRET with such an address faults in the"
            " kernel, on the user's stack (CVE-2012-0217)"
        )
    if register == "rflags":
        _require_flags(value)
    if name == "ret":
        _require_result(path, state)
    if name.startswith("arg"):
        _require_argument(name, path, state, rip)
    addresses = _find_addresses(register, name, path, base, state, gs_base)
    registers = state.copies.get(register, ()) if state is not None else ()
    if not addresses and not registers:
        raise UsageError(f"{name} was not set: the stub keeps it nowhere, only the compiled code has it now")
    return Edit(name, value, addresses, registers)


def _require_flags(value: int) -> None:
    never = value & ~_RETURNED_FLAGS
    if never:
        raise UsageError(
            f"rflags was not set: the program would never see {' '.join(decode_rflags(never))}, which SYSRET does"
            f" not load (it loads what {_RETURNED_FLAGS:#x} covers)"
        )


def warn_of_edit(name: str, value: int) -> str:
    """What the program will not like about `value`, though no return instruction faults on it; mostly nothing.

    >>> warn_of_edit("rflags", 0x46)
    'with IF clear no interrupt will reach the program'
    """
    flags = decode_rflags(value)
    warnings = []
    if name == "rflags":
        warnings += ["with IF clear no interrupt will reach the program"] if "IF" not in flags else []
        warnings += ["with TF set it gets #DB, before its next instruction by SYSRET"] if "TF" in flags else []
        warnings += ["with IOPL=3 it may use I/O ports and CLI"] if "IOPL=3" in flags else []
    if name == "rip" and is_upper_half(value):
        warnings.append("the address is in the kernel's half, where user code faults")
    return "; ".join(warnings)


def _require_result(path: EntryPath, state: StubState | None) -> None:
    if state is None or not state.after_dispatch:
        where = f"`tbreak *{path.dispatcher.return_address:#x}`" if path.dispatcher is not None else "the exit"
        raise UsageError(f"ret was not set: the dispatcher will overwrite it; stop where it returns, {where}")


def _require_argument(name: str, path: EntryPath, state: StubState | None, rip: int) -> None:
    if state is not None and state.after_dispatch:
        raise UsageError(f"{name} was not set: the dispatcher has returned")
    if state is None and (path.dispatcher is None or rip != path.dispatcher.address):
        raise UsageError(
            f"{name} was not set: the dispatcher may have taken it already; stop in the entry stub, or at the"
            " dispatcher's first instruction"
        )


def _find_addresses(
    register: str, name: str, path: EntryPath, base: int | None, state: StubState | None, gs_base: int | None
) -> tuple[int, ...]:
    """Every slot of the frame that holds or gives back `register`, and the per-CPU slot of user rsp."""
    if state is not None and state.after_dispatch:
        words = _find_words(register, path, base, state, gs_base)
        if words is not None:
            return words
    found = []
    # What was pushed for the call alone matters until the dispatcher has it.
    pushed = path.frame.scratch if state is not None and not state.after_dispatch else ()
    for slot in (*path.frame.slots, *pushed):
        holds = slot.holds == register and name != "ret"
        is_meant = holds or register in slot.restored_to
        if base is not None and is_meant and _is_live(slot.offset, path, state):
            found.append(base + slot.offset)
    in_gs = isinstance(state.registers.get(register), InGsSlot) if state is not None else not found
    if register == "rsp" and path.user_rsp_slot is not None and gs_base is not None and in_gs:
        found.append(gs_base + path.user_rsp_slot & MASK_64)
    return tuple(dict.fromkeys(found))


def _find_words(
    register: str, path: EntryPath, base: int | None, state: StubState, gs_base: int | None
) -> tuple[int, ...] | None:
    """Every word that holds `register` now: behind the dispatcher that is what the return may read.

    The slots of the frame may have been popped, and others be where they were: what IRETQ takes. None if one of
    the words is counted from another register than rsp: nothing has been popped then.
    """
    found = []
    for held in state.words.get(register, ()):
        match held:
            case InFrame("rsp", offset) if offset >= 0 and base is not None and state.depth is not None:
                found.append(base + path.frame.base_below_top - state.depth + offset & MASK_64)
            case InGsSlot(offset) if gs_base is not None:
                found.append(gs_base + offset & MASK_64)
            case InFrame(pointer) if pointer != "rsp":
                return None
    return tuple(dict.fromkeys(found))


def _is_live(offset: int, path: EntryPath, state: StubState | None) -> bool:
    """Whether the slot is on the stack now: pushed already, and not popped yet."""
    if state is None:
        return True
    return state.depth is not None and path.frame.base_below_top - offset <= state.depth
