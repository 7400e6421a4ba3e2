"""exogdb/abi/dispatch/number_flow.py: where the number itself is, and not what happens to be as large."""

import pytest

from exogdb.abi.dispatch.number_flow import NumberFlow, follow_number
from exogdb.abi.dispatch.plan import plan_places
from exogdb.abi.dispatch.route import find_routes
from exogdb.abi.dispatch.trace import DispatcherEntry
from exogdb.abi.stub.location import InFrame, InRegister, Location, OnStack
from tests.unit.abi.dispatch.test_route import C_ARGUMENTS
from tests.unit.abi.kernel_images import Image, build_assembly

RDI = InRegister("rdi")


def follow(code: str, number: Location = RDI) -> tuple[NumberFlow | None, Image]:
    image = build_assembly(f".globl syscall_dispatch\nsyscall_dispatch:\n{code}\nfunction: ret")
    return follow_number(image, image.symbols["syscall_dispatch"], number, {}, ()), image


def found_at(code: str) -> Location | None:
    flow, image = follow(code)
    return flow.find(image.symbols["place"]) if flow is not None else None


@pytest.mark.parametrize(
    ("code", "where"),
    {
        "mov rbx, rdi; xor edi, edi": InRegister("rbx"),
        "mov rbx, rdi; mov edi, edi": InRegister("rbx"),
        "push rdi; xor edi, edi": OnStack(0),
        "push rdi; pop rbx; add rdi, 1": InRegister("rbx"),
        "push rbp; mov rbp, rsp; sub rsp, 0x40; mov [rbp - 0x10], rdi; xor edi, edi": OnStack(0x30),
        "sub rsp, 0x20; mov [rsp + 8], rdi; xor edi, edi; cmp qword ptr [rsp + 8], 5": OnStack(8),
        "mov rbx, rdi; call function": InRegister("rbx"),
        "sub rsp, 0x80; mov [rsp + 0x60], rdi; call function": OnStack(0x60),
        "mov r14, rdi; lea rdi, [rsp - 0x40]; call function": InRegister("r14"),
    }.items(),
)
def test_copies_are_followed(code: str, where: Location) -> None:
    assert found_at(f"{code}\nplace: ret") == where


@pytest.mark.parametrize(
    "code",
    [
        "xor edi, edi",
        "mov edi, 5",
        "mov ebx, edi; xor edi, edi",  # half of it
        "call function",  # which may change rdi
        "push rdi; mov dword ptr [rsp + 4], eax; xor edi, edi",
        "push rdi; lea rdi, [rsp]; call function",  # which may change the slot
        "push rdi; xor edi, edi; mov [rsp + rax * 8], rcx",
        "push rdi; mov rdi, rsp; rep stosq; xor edi, edi",
        "push rdi; xor edi, edi; call function",  # its own argument
        "push rdi; xor edi, edi; sub rsp, rax",
        "push rdi; xor edi, edi; pop rax; xor eax, eax; push rcx",
    ],
)
def test_what_may_have_changed_is_not_the_number(code: str) -> None:
    assert found_at(f"{code}\nplace: ret") is None


def test_every_way_counts_whether_a_run_takes_it_or_not() -> None:
    fast = "mov rbx, rdi; cmp byte ptr [rax], 0; je place; mov r12, rdi; {slow}; place: ret"
    assert found_at(fast.format(slow="call function")) == InRegister("rbx")
    assert found_at(fast.format(slow="call function; mov rbx, rax")) is None
    loop = "mov rbx, rdi; xor edi, edi; again: mov rcx, rbx; inc rbx; dec rax; jnz again; place: ret"
    assert found_at(loop) is None


def test_code_that_goes_who_knows_where_tells_nothing() -> None:
    assert follow("mov rbx, rdi; jmp rax")[0] is None
    assert follow("mov rbx, rdi; ret", InFrame("rdi", 0))[0] is None, "memory that is not the stack"


def test_an_indirect_jump_leads_where_runs_were_seen_to_go() -> None:
    code = "jmp [rax + rdi * 8]\nbehind: nop\narm: xor eax, eax\nplace: ret"
    image = build_assembly(f".globl syscall_dispatch\nsyscall_dispatch: {code}")
    leads = {image.symbols["behind"]: {image.symbols["arm"]}}
    flow = follow_number(image, image.symbols["syscall_dispatch"], InRegister("rdi"), leads, ())
    assert flow is not None
    assert flow.find(image.symbols["place"]) == InRegister("rdi")


def test_the_plan_has_the_slot_in_the_dispatchers_frame_for_a_stop_in_the_handler() -> None:
    image = build_assembly(
        """
        .globl syscall_dispatch
        syscall_dispatch:
            sub rsp, 0x68
            mov [rsp + 0x50], rdi
            cmp rdi, 1
            je arm
            add rsp, 0x68
            ret
        arm:
            mov edi, 1
            mov ebx, 1
            call sys_send
            add rsp, 0x68
            ret
        .section .text.sys_send
        sys_send:
            push rbp
            sub rsp, 0x20
        body: mov eax, 1
            add rsp, 0x20
            pop rbp
            ret
        """
    )
    entry = DispatcherEntry(image.symbols["syscall_dispatch"], InRegister("rdi"), C_ARGUMENTS)
    start, body = image.symbols["sys_send"], image.symbols["body"]
    routes = find_routes(image, entry, (1,))
    place = plan_places(routes, entry, first_line=lambda at: body if at == start else None)[1]
    assert place.address == body
    # Above what the handler pushed, the return address and the dispatcher's own frame below the slot.
    assert place.held_at == OnStack(0x20 + 8 + 8 + 0x50), "and not rbx, which is 1 for any number"
