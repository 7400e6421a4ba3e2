"""exogdb/abi/frame_edit.py: an edit is written where the way back reads, and nowhere else."""

import pytest

from exogdb.abi.frame import Moment
from exogdb.abi.frame_edit import Edit, plan_edit
from exogdb.abi.stub.entry import find_entry_path
from exogdb.errors import UsageError
from tests.unit.abi.stub_fixture import STUBS, TEXT, assemble

GS, RSP = 0x8000, 0x1_0000


def edit_at(text: str, label: str, name: str, value: int) -> Edit:
    """What is written for `name` by a CPU that stands at `label` of the stub `text`, with `RSP` in rsp."""
    stub = assemble(text)
    path = find_entry_path(stub.memory, TEXT)
    state = path.states[stub.labels[label]]
    assert state.depth is not None
    base = RSP + state.depth - path.frame.base_below_top
    return plan_edit(name, value, path, Moment.IN_STUB, base, state, GS, 48, stub.labels[label])


def with_label(name: str, old: str, new: str) -> str:
    text = (STUBS / f"{name}.s").read_text()
    assert old in text
    return text.replace(old, new)


def test_what_iretq_takes_is_written_and_not_the_slots_that_were_there() -> None:
    text = with_label("sound", "    swapgs\n    iretq", "ready: swapgs\n    iretq")
    assert edit_at(text, "ready", "rip", 0x401000).addresses == (RSP,)
    text = with_label("today", "    mov rbx, [rsp + 136]\n    swapgs", "    mov rbx, [rsp + 136]\nready: swapgs")
    assert RSP + 16 in edit_at(text, "ready", "rflags", 0x202).addresses


RETURNS_A_CONSTANT = """
syscall_entry:
    swapgs
    mov gs:[8], rsp
    mov rsp, gs:[0]
    push rcx
    push r11
    mov rdi, rax
    call dispatcher
    xor edi, edi
    xor esi, esi
    pop r11
    pop rcx
    cmp rax, -512
here: jne 1f
    xor eax, eax
1:  mov rsp, gs:[8]
    swapgs
    sysretq
dispatcher:
    ret
"""


def test_a_register_that_holds_the_same_constant_by_chance_is_left_alone() -> None:
    """rdi and rsi are 0 there, and so is what one of the ways out returns."""
    with pytest.raises(UsageError, match="keeps it nowhere"):
        edit_at(RETURNS_A_CONSTANT, "here", "ret", 5)
