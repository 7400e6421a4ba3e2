"""The system-call path as an annotated listing with a summary, and as JSON."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from exogdb.abi.stub.entry_path import ARGUMENT_REGISTERS, Dispatcher, EntryPath, Exit, FrameSlot
from exogdb.abi.stub.location import InRegister, describe_location
from exogdb.abi.stub.stub_state import StubState, describe_held
from exogdb.view.style import Style
from exogdb.view.table import Cell, render_sentence, render_table
from exogdb.view.value import hex64

__all__ = ["AbiReport", "abi_to_json", "annotate_path", "render_abi"]

NameOf = Callable[[int], str]


@dataclass(frozen=True)
class AbiReport:
    """A path with names for its addresses. `signature` is the dispatcher's, as text; empty without debug info.

    `disagreements` are where stub and dispatcher do not fit together.
    """

    path: EntryPath
    name_of: NameOf
    signature: str
    disagreements: tuple[str, ...]


def annotate_path(path: EntryPath) -> dict[int, str]:
    """What each instruction of the stub does to the path, by address; only those that do something."""
    notes: dict[int, list[str]] = {}
    for access in path.gs_accesses:
        verb = "stores to" if access.is_store else "uses"
        owner = "" if access.active.value == "kernel" else f" ({access.active.value}'s GS base!)"
        notes.setdefault(access.address, []).append(f"{verb} per-CPU slot {access.offset:#x}{owner}")
    for swap in path.swapgs:
        turn = f"{swap.before.value}'s -> {swap.before.swapped().value}'s"
        notes.setdefault(swap.address, []).append(f"GS base: {turn}")
    for switch in path.cr3_switches:
        notes.setdefault(switch.address, []).append(f"page tables: {switch.source}")
    for slot in (*path.frame.slots, *path.frame.scratch):
        if slot.stored_at is not None:
            notes.setdefault(slot.stored_at, []).append(f"frame{_offset(slot.offset)}: {slot.value}")
    if path.stack is not None and path.stack.loaded_at is not None:
        notes.setdefault(path.stack.loaded_at, []).append("kernel stack")
    for state in path.states.values():
        notes.setdefault(state.address, []).extend(_find_returned(path, state))
    if path.dispatcher is not None:
        notes.setdefault(path.dispatcher.call_address, []).append("dispatcher")
    for way in path.exits:
        notes.setdefault(way.address, []).append(f"to user space, {way.gs.value}'s GS base active")
    return {address: "; ".join(dict.fromkeys(found)) for address, found in notes.items() if found}


def _offset(offset: int) -> str:
    return f"{'-' if offset < 0 else '+'}{abs(offset):#x}"


_SYSRET_TAKES = {"rcx": "rip", "r11": "rflags"}  # the program's own were lost at SYSCALL


def _find_returned(path: EntryPath, state: StubState) -> Iterator[str]:
    """The user registers that are in place behind this instruction of the way out, and were not before."""
    following = path.state_at(state.address + len(state.code))
    if not state.after_dispatch or following is None or not following.after_dispatch:
        return
    for name, held in following.registers.items():
        if held == InRegister(name) and state.registers[name] != held:
            carried = _SYSRET_TAKES.get(name)
            if carried is not None and following.registers.get(carried) == held:
                yield f"user {carried} back, in {name}"
                continue
            constants = {way.registers[name].value for way in path.exits if name in way.registers}
            kinds = {way.registers[name].kind for way in path.exits if name in way.registers}
            yield f"user {name} = {', '.join(sorted(constants))}" if kinds == {"constant"} else f"user {name} back"


def render_abi(report: AbiReport, style: Style) -> str:
    """Listing, frame, dispatcher, exits and doubts."""
    path = report.path
    heading = style.paint("heading", "system-call path")
    source = f"profile {path.profile} over the stub's code" if path.profile else "the stub's code"
    blocks = [
        [f"{heading} from {path.entry:#x} {report.name_of(path.entry)}, by {source}"],
        [_render_listing(path, style)],
        list(_render_slots(path)),
        list(_render_frame(path, style)),
        list(_render_dispatcher(report, style)),
        [line for way in path.exits for line in _render_exit(way, style)],
        [render_sentence(f"not sure: {doubt}", style, "warning") for doubt in path.doubts],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _render_listing(path: EntryPath, style: Style) -> str:
    notes = annotate_path(path)
    rows: list[tuple[Cell, ...]] = []
    following = path.entry
    for state in sorted(path.states.values(), key=lambda each: (each.after_dispatch, each.address)):
        if state.address != following:
            rows.append((Cell("..."), *[Cell("")] * 4))
        following = state.address + len(state.code)
        rows.append(_listing_row(state, notes.get(state.address, "")))
    return render_table(("address", "gs", "rsp", "instruction", "effect"), rows, style, {4: 18, 3: 18})


def _listing_row(state: StubState, note: str) -> tuple[Cell, ...]:
    gs = {"kernel": "K", "user": "U"}.get(state.gs.value, "?")
    depth = f"{-state.depth:+}" if state.depth is not None else state.stack
    text = _shorten(state.text)
    return Cell(f"{state.address:#x}", "address"), Cell(gs), Cell(depth), Cell(text), Cell(note, "name")


def _shorten(text: str) -> str:
    """Without sizes that another operand says already.

    >>> [_shorten(f"{text} qword ptr [rdi]") for text in ("mov rsp,", "push", "inc")]
    ['mov rsp, [rdi]', 'push [rdi]', 'inc qword ptr [rdi]']
    >>> _shorten("mov qword ptr [rsp], 0")
    'mov qword ptr [rsp], 0'
    """
    mnemonic, _, operands = text.partition(" ")
    others = [each for each in operands.split(", ") if "ptr" not in each]
    is_said = not others or not all(each.startswith(tuple("-0123456789")) for each in others)
    wide = mnemonic in ("push", "pop", "call", "jmp") or others
    return text.replace("qword ptr ", "") if is_said and wide else text


def _render_slots(path: EntryPath) -> Iterator[str]:
    if path.user_rsp_slot is not None:
        yield f"user rsp is kept in per-CPU slot {path.user_rsp_slot:#x}"
    if path.stack is not None:
        yield f"kernel stack's top comes from {path.stack.top}"
    for switch in path.cr3_switches:
        yield f"page tables on the way {'out' if switch.on_exit else 'in'}: CR3 = {switch.source}"


def _render_frame(path: EntryPath, style: Style) -> Iterator[str]:
    layout = path.frame
    if not layout.slots:
        return
    yield style.paint(
        "heading", f"saved frame: {layout.size} bytes, {layout.base_below_top} below the stack's top"
    )
    for slot in reversed(layout.slots):
        yield f"  {_offset(slot.offset):<7} {layout.name_of(slot):<7} {_slot_note(slot)}"
    for slot in reversed(layout.scratch):
        yield f"  {_offset(slot.offset):<7} {'-':<7} {_slot_note(slot)} (for the call alone)"


def _slot_note(slot: FrameSlot) -> str:
    back = f", back to {', '.join(slot.restored_to)}" if slot.restored_to else ", not read back"
    return f"{slot.value} ({slot.how}){back}"


def _render_dispatcher(report: AbiReport, style: Style) -> Iterator[str]:
    dispatcher = report.path.dispatcher
    if dispatcher is None:
        yield style.paint("bad", "no dispatcher was found")
        return
    name = report.name_of(dispatcher.address) if dispatcher.address is not None else ""
    heading = style.paint("heading", "dispatcher")
    target = f"{dispatcher.target} {name}".strip()
    yield render_sentence(f"{heading} {target}, called at {dispatcher.call_address:#x}", style)
    yield render_sentence(f"  {_describe_alignment(dispatcher)}", style)
    yield f"  number  user rax  {_place(dispatcher, None)}"
    for position, register in enumerate(ARGUMENT_REGISTERS):
        yield f"  arg{position + 1}    user {register:<3}  {_place(dispatcher, position)}"
    if report.signature:
        yield render_sentence(f"  signature {report.signature}", style)
    for problem in report.disagreements:
        yield render_sentence(f"  disagrees: {problem}", style, "bad")


def _place(dispatcher: Dispatcher, position: int | None) -> str:
    place = dispatcher.number if position is None else dispatcher.arguments[position]
    return describe_location(place) if place is not None else "lost"


def _describe_alignment(dispatcher: Dispatcher) -> str:
    if dispatcher.is_aligned is None:
        return "stack alignment at the call is not known"
    if dispatcher.realigned:
        return "stack aligned to 16 at the call, by the stub itself"
    how = "a multiple of 16" if dispatcher.is_aligned else "NOT a multiple of 16"
    return f"rsp is {dispatcher.rsp_below_top} bytes below the stack's top at the call: {how} if the top is one"


def _render_exit(way: Exit, style: Style) -> Iterator[str]:
    skipped = "" if way.after_dispatch else ", without the dispatcher"
    yield f"{style.paint('heading', way.kind)} at {way.address:#x}, {way.gs.value}'s GS base active{skipped}"
    kinds: dict[str, list[str]] = {}
    for name, back in way.registers.items():
        kinds.setdefault(back.kind, []).append(name)
    for kind in sorted(kinds):
        role = "bad" if kind == "leaked" else "faint"
        names = wrap(" ".join(kinds[kind]), max(style.width - 12, 20) if style.width else 1000)
        yield f"  {style.paint(role, f'{kind:<9}')} " + ("\n" + " " * 12).join(names)


def abi_to_json(report: AbiReport) -> dict[str, Any]:
    """Everything that the screen shows, and the state in front of every instruction."""
    path = report.path
    return {
        "entry": hex64(path.entry),
        "symbol": report.name_of(path.entry) or None,
        "profile": path.profile or None,
        "swapgs": [
            {"address": hex64(swap.address), "before": swap.before.value, "on_exit": swap.on_exit}
            for swap in path.swapgs
        ],
        "user_rsp_slot": _optional_hex(path.user_rsp_slot),
        "kernel_rsp_slot": _optional_hex(path.kernel_rsp_slot),
        "kernel_stack": str(path.stack.top) if path.stack is not None else None,
        "cr3": [
            {"address": hex64(switch.address), "source": switch.source, "on_exit": switch.on_exit}
            for switch in path.cr3_switches
        ],
        "frame": _frame_to_json(path),
        "dispatcher": _dispatcher_to_json(report),
        "exits": [_exit_to_json(way) for way in path.exits],
        "instructions": [_state_to_json(state) for _, state in sorted(path.states.items())],
        "doubts": list(path.doubts),
    }


def _optional_hex(value: int | None) -> str | None:
    return hex64(value) if value is not None else None


def _frame_to_json(path: EntryPath) -> dict[str, Any]:
    return {
        "size": path.frame.size,
        "base_below_top": path.frame.base_below_top,
        "slots": [
            {
                "offset": slot.offset,
                "register": path.frame.name_of(slot),
                "value": slot.value,
                "how": slot.how,
                "stored_at": _optional_hex(slot.stored_at),
                "restored_to": list(slot.restored_to),
            }
            for slot in path.frame.slots
        ],
    }


def _dispatcher_to_json(report: AbiReport) -> dict[str, Any] | None:
    dispatcher = report.path.dispatcher
    if dispatcher is None:
        return None
    places = (dispatcher.number, *dispatcher.arguments)
    number, *arguments = (describe_location(place) if place is not None else None for place in places)
    return {
        "address": _optional_hex(dispatcher.address),
        "symbol": (report.name_of(dispatcher.address) or None) if dispatcher.address is not None else None,
        "call": hex64(dispatcher.call_address),
        "return": hex64(dispatcher.return_address),
        "number": number,
        "arguments": arguments,
        "frame_pointer": dispatcher.frame_pointer.register if dispatcher.frame_pointer is not None else None,
        "aligned": dispatcher.is_aligned,
        "signature": report.signature or None,
        "disagreements": list(report.disagreements),
    }


def _exit_to_json(way: Exit) -> dict[str, Any]:
    return {
        "address": hex64(way.address),
        "kind": way.kind,
        "gs": way.gs.value,
        "registers": {name: {"kind": back.kind, "from": back.value} for name, back in way.registers.items()},
    }


def _state_to_json(state: StubState) -> dict[str, Any]:
    return {
        "address": hex64(state.address),
        "text": state.text,
        "on_exit": state.after_dispatch,
        "gs": state.gs.value,
        "stack": state.stack,
        "depth": state.depth,
        "registers": {name: describe_held(held) for name, held in state.registers.items()},
    }
