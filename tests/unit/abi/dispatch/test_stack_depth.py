"""exogdb/abi/dispatch/stack_depth.py: code that moves rsp by something else in each call."""

import pytest

from exogdb.abi.dispatch.place import PlaceKind
from exogdb.abi.dispatch.plan import plan_places
from exogdb.abi.dispatch.route import find_routes
from exogdb.abi.dispatch.stack_depth import moves_stack_unknown
from exogdb.abi.dispatch.trace import DispatcherEntry
from exogdb.abi.stub.location import InRegister, OnStack
from tests.unit.abi.dispatch.test_route import C_ARGUMENTS
from tests.unit.abi.kernel_images import build_assembly

KNOWN = """
    push rbx
    sub rsp, 0x28
    lea rsp, [rsp - 0x100]
    and rsp, -16
    mov [rsp + 8], rax
    lea rax, [rsp + 8]
    lea rsp, [rbp - 8]
    mov rsp, rbp
    leave
"""
UNKNOWN_MOVES = (
    "sub rsp, rax",
    "add rsp, rcx",
    "and rsp, -64",
    "mov rsp, rax",
    "mov rsp, [rdi]",
    "lea rsp, [rsp + rax]",
    "lea rsp, [rbx + 8]",
    "xchg rsp, rax",
    "sub rsp, [rdi]",
)


def test_what_the_code_tells_is_known() -> None:
    image = build_assembly(f"begin: {KNOWN}\nend: ret")
    assert not moves_stack_unknown(image, image.symbols["begin"], image.symbols["end"])


@pytest.mark.parametrize("instruction", UNKNOWN_MOVES)
def test_what_a_register_or_memory_decides_is_not(instruction: str) -> None:
    image = build_assembly(f"begin: push rbx\n{instruction}\nend: ret")
    assert moves_stack_unknown(image, image.symbols["begin"], image.symbols["end"])


def test_behind_a_random_move_no_offset_from_rsp_is_used() -> None:
    """As Linux does it: `random` is another number in each call, and what emulation saw of it is only one."""
    image = build_assembly(
        """
        .globl syscall_dispatch
        syscall_dispatch:
            push rbp
            mov rbp, rsp
            push rdi
            sub rsp, [random]
            cmp rdi, 5
            je arm
            mov rax, -1
            leave
            ret
        arm:
            xor edi, edi
            call sys_send
            leave
            ret
        .section .text.sys_send
        sys_send: ret
        .data
        random: .quad 0x40
        """
    )
    entry = DispatcherEntry(image.symbols["syscall_dispatch"], InRegister("rdi"), C_ARGUMENTS)
    handler = image.symbols["sys_send"]
    routes = find_routes(image, entry, (5,))
    plan = plan_places(routes, entry, first_line=lambda at: at if at == handler else None)
    place = plan[5]
    assert (place.kind, place.address) == (PlaceKind.ADDRESS, handler)
    assert place.return_slot is None
    assert place.caller_slot == 0, "what the call itself has pushed is on top"
    assert not any(isinstance(where, OnStack) for where in place.arguments)
