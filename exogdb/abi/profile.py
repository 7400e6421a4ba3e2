"""Profile files: what the analysis found of a kernel's system-call path, as TOML to save, edit and load.

::

    version = 1
    user_rsp_slot = 0x8            # per-CPU slots, as offsets from the kernel's GS base
    kernel_rsp_slot = 0x0

    [groups]                       # more groups for choosing calls: `%net`
    net = "open,close,%ipc"        # in the grammar of `exo-syscall break`

    [frame]
    base_below_top = 0x40          # bytes from the kernel stack's top down to the frame
    [[frame.slot]]
    offset = 0x38                  # from the frame's base
    holds = "rip"                  # the user register saved there
    restored_to = ["rip", "rcx"]   # the user registers that come back from there

    [dispatcher]
    call = 0x3b                    # the call instruction, as an offset from the entry
    rsp_below_top = 0x50           # the stack's depth at the call
    realigned = false              # the stub aligns rsp itself
    number = "rdi"                 # at the dispatcher's first instruction
    arguments = ["rsi", "rdx", "rcx", "r8", "r9", "[rsp+0x8]"]

Every key but `version` may be left out: the analysis fills it in. Addresses are relative to the entry, so that a
profile outlives the kernel's being moved.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from exogdb.abi.stub.entry import USER_REGISTERS, find_entry_path
from exogdb.abi.stub.entry_path import (
    ARGUMENT_REGISTERS,
    Dispatcher,
    EntryPath,
    FrameLayout,
    FrameSlot,
    KernelStack,
)
from exogdb.abi.stub.location import Location, describe_location, parse_location
from exogdb.abi.stub.symbolic import Cell, Loaded
from exogdb.errors import FormatError
from exogdb.x86.memory import ReadableMemory
from exogdb.x86.word import MASK_64

__all__ = ["PROFILE_VERSION", "Profile", "apply_profile", "parse_profile", "write_profile"]

PROFILE_VERSION = 1
_SAVED = (*USER_REGISTERS, "cr3")
_WORD = 8


@dataclass(frozen=True)
class Profile:
    """What a profile file says; None where it says nothing. `call` is relative to the entry."""

    user_rsp_slot: int | None = None
    kernel_rsp_slot: int | None = None
    base_below_top: int | None = None
    slots: tuple[FrameSlot, ...] | None = None
    call: int | None = None
    rsp_below_top: int | None = None
    realigned: bool | None = None
    number: Location | None = None
    arguments: tuple[Location | None, ...] | None = None
    groups: Mapping[str, str] = field(default_factory=dict)


def write_profile(path: EntryPath, groups: Mapping[str, str] | None = None) -> str:
    """`path` as the text of a profile file, with the groups of calls of another one."""
    lines = [f"version = {PROFILE_VERSION}"]
    lines += _write_number("user_rsp_slot", path.user_rsp_slot) + _write_number(
        "kernel_rsp_slot", path.kernel_rsp_slot
    )
    lines += ["", "[frame]", f"base_below_top = {path.frame.base_below_top:#x}"]
    for slot in path.frame.slots:
        lines += ["", "[[frame.slot]]", f"offset = {slot.offset:#x}"]
        lines += [f'holds = "{slot.holds}"'] if slot.holds else [f"# holds {slot.value}"]
        if slot.restored_to:
            lines.append(f"restored_to = [{', '.join(map(_quote, slot.restored_to))}]")
    if groups:
        lines += ["", "[groups]", *(f"{_quote_text(name)} = {_quote_text(text)}" for name, text in groups.items())]
    if path.dispatcher is not None:
        lines += ["", "[dispatcher]", *_write_dispatcher(path.dispatcher, path.entry)]
    return "\n".join(lines) + "\n"


def _write_dispatcher(dispatcher: Dispatcher, entry: int) -> list[str]:
    lines = [f"call = {dispatcher.call_address - entry:#x}"]
    lines += _write_number("rsp_below_top", dispatcher.rsp_below_top)
    lines.append(f"realigned = {str(dispatcher.realigned).lower()}")
    if dispatcher.number is not None:
        lines.append(f"number = {_quote(describe_location(dispatcher.number))}")
    places = (describe_location(place) if place is not None else "" for place in dispatcher.arguments)
    lines.append(f"arguments = [{', '.join(map(_quote, places))}]")
    return lines


def _write_number(key: str, value: int | None) -> list[str]:
    return [f"{key} = {value:#x}"] if value is not None else []


def _quote_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a TOML string


def _quote(text: str) -> str:
    return f'"{text}"'


def parse_profile(text: str) -> Profile:
    """Read the text of a profile file.

    :raise FormatError: it is no TOML, of another version, or a key is unknown or of the wrong kind.

    >>> parse_profile("version = 1\\nuser_rsp_slot = 0x8").user_rsp_slot
    8
    """
    import tomllib

    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also too many digits or brackets
        raise FormatError(f"not TOML: {error}") from error
    top = _Table(table, "")
    if top.take("version", int) != PROFILE_VERSION:
        raise FormatError(f"`version` must be {PROFILE_VERSION}")
    frame = _Table(top.take("frame", dict) or {}, "frame.")
    dispatcher = _Table(top.take("dispatcher", dict) or {}, "dispatcher.")
    slots = frame.take("slot", list)
    profile = Profile(
        user_rsp_slot=top.take("user_rsp_slot", int),
        kernel_rsp_slot=top.take("kernel_rsp_slot", int),
        base_below_top=frame.take("base_below_top", int),
        slots=tuple(_parse_slot(slot) for slot in slots) if slots is not None else None,
        call=dispatcher.take("call", int),
        rsp_below_top=dispatcher.take("rsp_below_top", int),
        realigned=dispatcher.take("realigned", bool),
        number=_parse_place(dispatcher.take("number", str)),
        arguments=_parse_arguments(dispatcher.take("arguments", list)),
        groups=_parse_groups(top.take("groups", dict) or {}),
    )
    for each in (top, frame, dispatcher):
        each.expect_empty()
    return profile


class _Table:
    """A TOML table from which keys are taken; what is left over is unknown."""

    def __init__(self, content: Mapping[str, Any], prefix: str) -> None:
        self._content = dict(content)
        self._prefix = prefix

    def take(self, key: str, kind: type) -> Any:
        value = self._content.pop(key, None)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise FormatError(f"`{self._prefix}{key}` must be {_KINDS[kind]}, not {value!r}")
        if isinstance(value, int) and not -MASK_64 <= value <= MASK_64:
            raise FormatError(f"`{self._prefix}{key}` does not fit into 64 bits")
        return value

    def expect_empty(self) -> None:
        if self._content:
            raise FormatError(f"`{self._prefix}{next(iter(self._content))}` is not a key of a profile")


_KINDS = {int: "a whole number", str: "a string", bool: "true or false", list: "an array", dict: "a table"}


def _parse_slot(content: Any) -> FrameSlot:
    if not isinstance(content, dict):
        raise FormatError("each `frame.slot` must be a table: [[frame.slot]]")
    table = _Table(content, "frame.slot.")
    offset, holds = table.take("offset", int), table.take("holds", str)
    restored = table.take("restored_to", list) or []
    table.expect_empty()
    strange = next((each for each in (holds, *restored) if each is not None and each not in _SAVED), None)
    if strange is not None:
        raise FormatError(f"`frame.slot` names {strange!r}, which is no register such as rip, rflags or rax")
    if offset is None or offset % _WORD:
        raise FormatError("`frame.slot.offset` must be there, and a multiple of 8")
    return FrameSlot(offset, holds, f"user {holds}" if holds else "-", "profile", None, tuple(restored))


def _parse_place(text: str | None) -> Location | None:
    return parse_location(text) if text else None


def _parse_arguments(places: list[Any] | None) -> tuple[Location | None, ...] | None:
    if places is None:
        return None
    if len(places) != len(ARGUMENT_REGISTERS) or not all(isinstance(place, str) for place in places):
        raise FormatError(f"`dispatcher.arguments` must be {len(ARGUMENT_REGISTERS)} strings")
    return tuple(map(_parse_place, places))


def _parse_groups(groups: dict[str, Any]) -> dict[str, str]:
    for name, choice in groups.items():
        if re.search(r"[\s,!%]", name):
            raise FormatError(f"`groups.{name}` cannot be chosen: a group's name has no blank, comma, ! or %")
        if not isinstance(choice, str):
            raise FormatError(
                f"`groups.{name}` must be a string: the calls in it, as `exo-syscall break` takes them"
            )
    return groups


def apply_profile(profile: Profile, name: str, memory: ReadableMemory, entry: int) -> EntryPath:
    """The path at `entry` as the analysis has it, overridden by `profile`, whose file is called `name`.

    :raise AnalysisError: there is no code at `entry`.
    :raise FormatError: the profile names a call that the stub does not reach.
    """
    call = None if profile.call is None else entry + profile.call
    path = find_entry_path(memory, entry, call)
    if path.dispatcher is None and call is not None:
        raise FormatError(f"`dispatcher.call`: the stub at {entry:#x} reaches no call at {call:#x}")
    slots = path.frame.slots if profile.slots is None else profile.slots
    base = path.frame.base_below_top if profile.base_below_top is None else profile.base_below_top
    size = max((slot.offset + _WORD for slot in slots), default=0)
    stack = path.stack
    if profile.kernel_rsp_slot is not None:
        top = Loaded(Cell("gs", None, profile.kernel_rsp_slot))
        stack = KernelStack(top, profile.kernel_rsp_slot, stack.loaded_at if stack is not None else None)
    return replace(
        path,
        user_rsp_slot=path.user_rsp_slot if profile.user_rsp_slot is None else profile.user_rsp_slot,
        stack=stack,
        frame=FrameLayout(slots, size, base, path.frame.scratch),
        dispatcher=_override(path.dispatcher, profile) if path.dispatcher is not None else None,
        profile=name,
    )


def _override(dispatcher: Dispatcher, profile: Profile) -> Dispatcher:
    return replace(
        dispatcher,
        rsp_below_top=dispatcher.rsp_below_top if profile.rsp_below_top is None else profile.rsp_below_top,
        realigned=dispatcher.realigned if profile.realigned is None else profile.realigned,
        number=dispatcher.number if profile.number is None else profile.number,
        arguments=dispatcher.arguments if profile.arguments is None else profile.arguments,
    )
