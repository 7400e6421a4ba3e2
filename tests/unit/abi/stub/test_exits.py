"""Behind the dispatcher a register is shown as what the program will get of it."""

import pytest

from exogdb.abi.stub.entry import find_entry_path
from exogdb.abi.stub.location import InRegister
from exogdb.abi.stub.stub_state import Held
from tests.unit.abi.stub_fixture import STUBS, TEXT, assemble


def held_at(text: str, label: str, register: str) -> Held:
    stub = assemble(text)
    return find_entry_path(stub.memory, TEXT).states[stub.labels[label]].registers[register]


def test_flags_that_were_masked_are_what_r11_holds() -> None:
    sound, end = (STUBS / "sound.s").read_text(), "    mov rsp, gs:[8]\n    swapgs\n    sysretq"
    assert end in sound
    text = sound.replace(end, "    or r11, 0x200\nmasked: mov rsp, gs:[8]\n    swapgs\nout: sysretq")
    assert held_at(text, "masked", "rflags") == held_at(text, "out", "rflags") == InRegister("r11")


NEGATED = """
syscall_entry:
    swapgs
    mov gs:[8], rsp
    mov rsp, gs:[0]
    push rcx
    push r11
    push rax
    mov rdi, rax
    call dispatcher
    neg rax
behind: add rsp, 8
    pop r11
    pop rcx
    mov rsp, gs:[8]
    swapgs
out: sysretq
dispatcher:
    ret
"""


@pytest.mark.parametrize("label", ["behind", "out"])
def test_a_result_that_was_not_followed_is_not_the_number_that_was_saved(label: str) -> None:
    assert held_at(NEGATED, label, "rax") == InRegister("rax")


TWO_EXITS = """
syscall_entry:
    swapgs
    mov gs:[8], rsp
    mov rsp, gs:[0]
    push rcx
    push r11
    push rdi
    mov rdi, rax
    call dispatcher
    mov rcx, [rsp + 16]
    mov r11, [rsp + 8]
    test r11d, 0x100
    jnz by_iret
    xor edi, edi
cleared: mov rsp, gs:[8]
    swapgs
    sysretq
by_iret:
    mov rdi, [rsp]
    push 0x23
    push gs:[8]
    push r11
    push 0x2b
    push rcx
    swapgs
    iretq
dispatcher:
    ret
"""


def test_where_the_exit_is_chosen_only_that_one_counts() -> None:
    """On the way to SYSRETQ rdi is 0; IRETQ gives back what its slot holds."""
    assert held_at(TWO_EXITS, "cleared", "rdi") == InRegister("rdi")
    assert held_at(TWO_EXITS, "by_iret", "rdi") != InRegister("rdi")
