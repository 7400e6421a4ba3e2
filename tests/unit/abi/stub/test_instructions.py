"""exogdb/abi/stub/interpret.py: what single instructions leave in registers, seen at the call and at SYSRET."""

import pytest

from exogdb.abi.stub.entry import find_entry_path
from exogdb.abi.stub.entry_path import EntryPath
from tests.unit.abi.stub_fixture import TEXT, assemble

STUB = """
syscall_entry:
    swapgs
    mov gs:[8], rsp
    mov rsp, gs:[0]
    push rcx
    push r11
    {before}
    call dispatcher
    {after}
    pop r11
    pop rcx
    mov rsp, gs:[8]
    swapgs
    sysretq
dispatcher:
    mov eax, 1
    ret
"""


def path_with(before: str = "nop", after: str = "nop") -> EntryPath:
    return find_entry_path(assemble(STUB.format(before=before, after=after)).memory, TEXT)


@pytest.mark.parametrize("instruction", ["rdpkru", "rdsspd eax", "rdsspq rax", "xlatb", "vmmcall"])
def test_what_capstone_does_not_report_is_written_all_the_same(instruction: str) -> None:
    dispatcher = path_with(f"{instruction}\n    mov rdi, rax").dispatcher
    assert dispatcher is not None
    assert dispatcher.number is None


def test_enter_moves_the_stack() -> None:
    path = path_with("enter 16, 0\n    mov rdi, rax")
    assert path.stack is None
    assert any("rsp is not known" in doubt for doubt in path.doubts)


@pytest.mark.parametrize(
    ("instructions", "value"),
    [
        ("xor edx, edx\n    dec edx", "0xffffffff"),
        ("xor edx, edx\n    sub edx, 2", "0xfffffffe"),
        ("mov edx, -1\n    add edx, 1", "0"),
        ("mov rdx, -1\n    lea edx, [rdx - 1]", "0xfffffffe"),
        ("xor edx, edx\n    dec rdx", "-1"),
        ("mov edx, ebx\n    and edx, -16", "and(low32(user rbx), 0xfffffff0)"),
        ("lea edx, [rbx + 8]", "low32(user rbx+0x8)"),
    ],
)
def test_32_bit_arithmetic_wraps(instructions: str, value: str) -> None:
    (way,) = path_with(after=instructions).exits
    assert way.registers["rdx"].value == value


def test_what_a_small_function_stores_is_in_the_frame() -> None:
    before = "push rax\n    mov rdi, rsp\n    call stamp\n    mov rdi, rsp"
    path = path_with(before, "pop rax\n    jmp back\nstamp: mov qword ptr [rdi], -38\n    ret\nback:")
    (slot,) = (slot for slot in path.frame.slots if "rax" in slot.restored_to)
    assert (slot.holds, slot.value) == (None, "-0x26")
