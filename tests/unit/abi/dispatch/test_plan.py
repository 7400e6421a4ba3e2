"""The planner takes the cheapest place that is there, and says what it costs."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from exogdb.abi.dispatch.place import Cost, Machine, PlaceKind, Plan, PlanCache, combine
from exogdb.abi.dispatch.plan import plan_places
from exogdb.abi.dispatch.route import UNKNOWN, find_routes
from exogdb.abi.dispatch.trace import DispatcherEntry
from exogdb.abi.stub.location import InFrame, InRegister, OnStack
from tests.unit.abi.dispatch.test_route import C_ARGUMENTS, HANDLERS, NUMBERS, rust_dispatcher
from tests.unit.abi.kernel_images import Image, build_assembly, build_rust


def plan_of(image: Image, numbers: Iterable[int], hot: Iterable[int] = (), machine: Machine | None = None) -> Plan:
    entry = DispatcherEntry(image.symbols["syscall_dispatch"], InRegister("rdi"), C_ARGUMENTS)
    functions = set(image.symbols.values())
    routes = find_routes(image, entry, numbers)
    return plan_places(routes, entry, hot=hot, first_line=lambda a: a if a in functions else None, machine=machine)


@pytest.mark.parametrize("optimisation", ["opt-level=0", "opt-level=3"])
def test_a_handler_in_a_page_of_its_own_is_free(optimisation: str) -> None:
    image = build_rust(rust_dispatcher(), optimisation)
    plan = plan_of(image, NUMBERS)
    for number in (0, 4, 101):
        place = plan[number]
        assert (place.kind, place.cost) == (PlaceKind.ADDRESS, Cost.FREE)
        assert place.address == image.symbols[HANDLERS[number]]
        assert place.numbers == {number}
    # Standing at the handler, its first argument is where the calling convention has it.
    assert plan[4].arguments[0] == InRegister("rdi")


def test_a_page_that_the_entry_stub_uses_is_not_free() -> None:
    image = build_rust(rust_dispatcher(), "opt-level=3")
    handler = image.symbols["sys_send"]
    place = plan_of(image, NUMBERS, hot=[handler + 64])[101]
    assert place.cost is Cost.SHARED_PAGE
    assert place.cost.value == "page shared with the dispatcher"


def test_merged_arms_get_the_table_entry_or_a_check_where_the_number_still_is() -> None:
    image = build_rust(rust_dispatcher(), "opt-level=3")
    plan = plan_of(image, NUMBERS)
    first, second = plan[1], plan[2]
    assert first.kind is second.kind is PlaceKind.TABLE_ENTRY
    assert first.cost is Cost.WATCHED_TABLE
    assert first.address == second.address
    assert first.numbers == second.numbers == {1, 2}
    assert first.entry is not None
    assert second.entry is not None
    assert second.entry.address - first.entry.address == first.entry.size


def test_where_every_call_is_wanted_no_entry_is_watched_but_for_merged_arms() -> None:
    image = build_rust(rust_dispatcher(), "opt-level=3")
    handler = image.symbols[HANDLERS[4]]
    plan = plan_of(image, NUMBERS, hot=[handler + 64])
    watched = plan[4]
    assert (watched.kind, watched.address) == (PlaceKind.TABLE_ENTRY, handler)
    place = watched.where_every_call_is_wanted()
    assert (place.kind, place.address, place.entry) == (PlaceKind.ADDRESS, handler, None)
    assert place.cost is Cost.STOP_PER_CALL
    assert plan[1].where_every_call_is_wanted() == plan[1], "its address does not tell the number"


def test_where_the_dispatcher_is_watched_anyway_all_is_decided_there() -> None:
    image = build_rust(rust_dispatcher(), "opt-level=3")
    plan = plan_of(image, NUMBERS, hot=[image.symbols[HANDLERS[4]] + 64])
    dispatcher = replace(plan[4], kind=PlaceKind.DISPATCHER, address=image.symbols["syscall_dispatch"])
    chosen = combine([plan[1], plan[101], dispatcher], is_every_call=False)
    assert [each.kind for each in chosen] == [PlaceKind.BEHIND_DISPATCHER] * 2 + [PlaceKind.DISPATCHER]
    assert [each.address for each in chosen] == [plan[1].address, plan[101].address, dispatcher.address]
    assert all(each.entry is None for each in chosen[:2]), "no table entry is watched"
    assert combine([plan[1], plan[4]], is_every_call=False) == [plan[1], plan[4]]


def test_without_watchpoints_a_merged_arm_is_left_to_what_can_still_tell_the_number() -> None:
    image = build_rust(rust_dispatcher(), "opt-level=3")
    place = plan_of(image, NUMBERS, machine=Machine("several CPUs"))[1]
    assert place.kind is not PlaceKind.TABLE_ENTRY
    assert place.number_at is not None
    assert {1, 2} <= place.numbers
    assert "that entry is not watched: several CPUs" in place.reasons


def test_where_pages_do_not_matter_every_address_of_its_own_is_free() -> None:
    image = build_rust(rust_dispatcher(), "opt-level=3")
    handler = image.symbols["sys_send"]
    place = plan_of(image, NUMBERS, hot=[handler + 64], machine=Machine(pages_cost=False))[101]
    assert (place.kind, place.cost) == (PlaceKind.ADDRESS, Cost.FREE)


def test_unhandled_numbers_are_told_apart_in_the_default_arm() -> None:
    image = build_rust(rust_dispatcher(), "opt-level=0")
    place = plan_of(image, NUMBERS)[3]
    assert place.kind is PlaceKind.ADDRESS
    assert place.cost is Cost.STOP_PER_MERGED_CALL
    assert place.numbers == {3, UNKNOWN}
    assert place.number_at is not None
    assert "merged with that of every number that the table lacks" in place.reasons[0]


def test_the_last_resort_is_the_dispatcher() -> None:
    image = build_assembly(
        """
        .globl syscall_dispatch
        syscall_dispatch:
            lea rax, [rdi+rdi]
            ret
        """
    )
    place = plan_of(image, (1, 2))[1]
    assert (place.kind, place.cost) == (PlaceKind.DISPATCHER, Cost.STOP_PER_CALL)
    assert place.address == image.symbols["syscall_dispatch"]
    assert place.number_at == InRegister("rdi")
    assert place.arguments == C_ARGUMENTS


HANDLER_CALLED_TWICE = """
.globl syscall_dispatch
syscall_dispatch:
    push rbx
    cmp rdi, 5
    je arm_5
    cmp rdi, 6
    je arm_6
    pop rbx
    ret
arm_5:
    call sys_send
after_call:
    pop rbx
    ret
arm_6:
    pop rbx
    jmp sys_getpid
.section .text.sys_send
sys_send:
    push rbp
    mov rbp, rsp
    sub rsp, 32
body:
    mov rax, rdi
    leave
    ret
.section .text.sys_getpid
sys_getpid: ret
"""


def test_the_place_says_who_may_have_called_the_handler() -> None:
    image = build_assembly(HANDLER_CALLED_TWICE)
    entry = DispatcherEntry(image.symbols["syscall_dispatch"], InRegister("rdi"), C_ARGUMENTS)
    bodies = {
        image.symbols["sys_send"]: image.symbols["body"],
        image.symbols["sys_getpid"]: image.symbols["sys_getpid"],
    }
    plan = plan_places(find_routes(image, entry, (5, 6)), entry, first_line=bodies.get)
    called, jumped = plan[5], plan[6]
    # Past the prologue: push rbp, 32 bytes of locals, then the return address.
    assert called.address == image.symbols["body"]
    assert called.caller_slot == 40
    assert called.callers == {image.symbols["after_call"]}
    assert called.return_slot == 40 + 8 + 8
    # A tail jump leaves the dispatcher's own return address on top.
    assert (jumped.caller_slot, jumped.return_slot) == (0, 0)
    assert set(jumped.callers) == {None}


def test_a_body_behind_a_branch_is_not_used() -> None:
    image = build_assembly(
        """
        .globl syscall_dispatch
        syscall_dispatch:
            cmp rdi, 5
            je sys_send
            ret
        .section .text.sys_send
        sys_send:
            test rsi, rsi
            je early
        body:
            nop
        early: ret
        """
    )
    entry = DispatcherEntry(image.symbols["syscall_dispatch"], InRegister("rdi"), C_ARGUMENTS)
    bodies = {image.symbols["sys_send"]: image.symbols["body"]}
    assert (
        plan_places(find_routes(image, entry, (5,)), entry, first_line=bodies.get)[5].address
        == image.symbols["sys_send"]
    )


def test_arguments_are_found_where_the_code_left_them() -> None:
    image = build_assembly(
        """
        .globl syscall_dispatch
        syscall_dispatch:
            cmp rdi, 5
            jne other
            push rsi
            mov rbx, rdx
            xor esi, esi
            xor edx, edx
            xor r9d, r9d
            jmp sys_send
        other: ret
        .section .text.sys_send
        sys_send: pop rsi
            ret
        """
    )
    place = plan_of(image, (5,))[5]
    assert place.address == image.symbols["sys_send"]
    assert place.arguments == (
        OnStack(0), InRegister("rbx"), InRegister("rcx"), InRegister("r8"), None, OnStack(16),
    )  # fmt: skip


def test_the_cache_is_good_until_the_code_changes() -> None:
    image = build_assembly(HANDLER_CALLED_TWICE)
    entry = DispatcherEntry(image.symbols["syscall_dispatch"], InRegister("rdi"), C_ARGUMENTS)
    made: list[Plan] = []

    def make() -> Plan:
        made.append(plan_places(find_routes(image, entry, (5, 6)), entry))
        return made[-1]

    cache = PlanCache()
    assert cache.get(image, "build 1", entry, make) is cache.get(image, "build 1", entry, make)
    assert len(made) == 1
    cache.get(image, "build 2", entry, make)
    assert len(made) == 2
    page = image.symbols["syscall_dispatch"]
    patched = Image({**image.pages, page: b"\xcc" + image.pages[page][1:]}, image.symbols)
    cache.get(patched, "build 2", entry, make)
    assert len(made) == 3


def test_an_arm_behind_a_call_that_never_returns_is_still_its_own() -> None:
    image = build_assembly(
        """
        .globl syscall_dispatch
        syscall_dispatch:
            cmp rdi, 0
            je arm_0
            cmp rdi, 1
            je arm_1
            ret
        arm_0:
            call sys_exit
        arm_1:
            mov ecx, 1
            call sys_getpid
            ret
        .section .text.sys_exit
        sys_exit: jmp sys_exit
        .section .text.sys_getpid
        sys_getpid: ret
        """
    )
    plan = plan_of(image, (0, 1))
    assert plan[0].address == image.symbols["sys_exit"]
    assert plan[1].address == image.symbols["sys_getpid"]
    assert plan[1].numbers == {1}


def test_everybodys_way_out_is_nobodys_place() -> None:
    image = build_assembly(
        """
        .globl syscall_dispatch
        syscall_dispatch:
            cmp rdi, 5
            je arm_5
            cmp rdi, 6
            je arm_6
            mov rax, -1
            jmp out
        arm_5:
            call sys_send
            jmp out
        arm_6:
            mov eax, 6
        out:
            call sys_getpid
            ret
        .section .text.sys_send
        sys_send: ret
        .section .text.sys_getpid
        sys_getpid: ret
        """
    )
    plan = plan_of(image, (5, 6))
    # The run of 6 goes on into sys_getpid, those of 5 end at sys_send: all the same everybody comes there.
    assert plan[6].address == image.symbols["arm_6"]
    assert plan[6].cost is Cost.SHARED_PAGE
    assert plan[5].address == image.symbols["sys_send"]


def test_a_thunk_that_every_function_returns_through_joins_nothing() -> None:
    """As in kernels built against return-target speculation. 5 looks at the running process, too."""
    image = build_assembly(
        """
        .globl syscall_dispatch
        syscall_dispatch:
            call prelude
            cmp rdi, 5
            je arm_5
            cmp rdi, 6
            je arm_6
            mov rax, -1
            jmp return_thunk
        arm_5:
            mov rax, [process]
            jmp return_thunk
        arm_6:
            call sys_send
            jmp return_thunk
        prelude:
            jmp return_thunk
        return_thunk:
            ret
        .section .text.sys_send
        sys_send: ret
        .data
        process: .quad 0
        """
    )
    place = plan_of(image, (5, 6))[5]
    assert (place.kind, place.address) == (PlaceKind.ADDRESS, image.symbols["arm_5"])
    assert place.numbers == {5}


def test_the_stubs_copy_is_compared_only_where_the_kernel_has_left_it_alone() -> None:
    image = build_assembly(
        """
        .globl syscall_dispatch
        syscall_dispatch:
            mov rax, [rdi]
            cmp rax, 5
            je arm_5
            mov qword ptr [rdi], -38
            cmp rax, 6
            je arm_6
            ret
        arm_5: mov eax, 5
            ret
        arm_6: mov eax, 6
            ret
        """
    )
    number = InFrame("rdi", 0)
    entry = DispatcherEntry(image.symbols["syscall_dispatch"], number, (), number)
    plan = plan_places(find_routes(image, entry, (5, 6)), entry)
    assert [plan[each].address for each in (5, 6)] == [image.symbols["arm_5"], image.symbols["arm_6"]]
    assert [plan[each].is_number_saved for each in (5, 6)] == [True, False]


@pytest.mark.parametrize("way", ["call", "jmp"])
def test_a_wrapper_leads_to_the_handler_that_is_named_after_the_call(way: str) -> None:
    image = build_assembly(
        f"""
        .globl syscall_dispatch
        syscall_dispatch:
            cmp rdi, 5
            jne other
            call closure
        other: ret
        closure:
            mov edi, esi
            {way} sys_send
            ret
        .section .text.sys_send
        sys_send: ret
        """
    )
    entry = DispatcherEntry(image.symbols["syscall_dispatch"], InRegister("rdi"), C_ARGUMENTS)
    routes = find_routes(image, entry, (5,))
    place = plan_places(routes, entry, handlers={5: image.symbols["sys_send"]})[5]
    assert place.address == image.symbols["sys_send"]
    assert place.cost is Cost.FREE
    assert place.caller_slot == 0
    assert place.return_slot == (16 if way == "call" else 8)
