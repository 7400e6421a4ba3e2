"""`exo-syscall frame` against the kernel's own record of the call, wherever the guest stops."""

from typing import Any

import pytest

from tests.harness.session import Guest
from tests.harness.truth import IN_PROGRESS, CallTruth, read_call_truth, read_call_truths, read_cpu_truths
from tests.integration.conftest import OpenGuest
from tests.integration.stops import step_once
from tests.integration.test_frame_set import run_to
from tests.integration.test_unwind import stop_at_user_syscall

HANDLERS = [f"sys_{name}" for name in ("open", "close", "read", "write", "ipc_send", "ipc_recv", "getpid", "wait")]
# A guest may have stopped before its programs ran long enough for one of them to wait.
MOST_SENDS = 50
MOST_RETURNS = 5
SAVED = ("rbp", "rbx", "r12", "r13", "r14", "r15")


def current_call(guest: Guest, cpu: int = 0) -> CallTruth:
    """What the kernel wrote down about the call in progress on `cpu`."""
    return read_call_truth(guest.gdb, read_cpu_truths(guest.gdb)[cpu].last_sequence)


def expect_frame(answer: dict[str, Any], truth: CallTruth) -> None:
    assert answer["number"] == truth.number
    assert answer["base"] == hex(truth.frame)
    saved = {name: int(value, 16) for name, value in answer["saved"].items()}
    assert (saved["rip"], saved["rsp"], saved["rflags"]) == (truth.user_rip, truth.user_rsp, truth.user_rflags)
    assert {name: saved[name] for name in SAVED} == {name: getattr(truth, name) for name in SAVED}


def expect_slots(guest: Guest, answer: dict[str, Any]) -> None:
    """Every slot's address holds the value that is shown for it."""
    for name, address in answer["slots"].items():
        data = guest.gdb.memory(int(address, 16), 8)
        assert int.from_bytes(data, "little") == int(answer["saved"][name], 16), name


@pytest.mark.parametrize("variant", ["", "debug", "today"])
def test_deep_in_a_handler_the_frame_is_what_the_kernel_recorded(guest: OpenGuest, variant: str) -> None:
    one = guest(variant=variant)
    one.gdb.run("hbreak sys_ipc_send")
    one.gdb.run("continue")
    answer = one.gdb.json("exo-syscall frame")
    truth = current_call(one)
    expect_frame(answer, truth)
    expect_slots(one, answer)
    assert (answer["state"], answer["name"], answer["handler"]) == ("call", "ipc_send", "sys_ipc_send")
    assert [int(value, 16) for value in answer["args"][:3]] == list(truth.arguments[:3])
    assert [argument["name"] for argument in answer["arguments"][:3]] == ["channel", "message", "length"]
    assert "exo::calls::ipc_send" in answer["symbol"]


@pytest.mark.parametrize(("variant", "exact"), [("", False), ("debug", False), ("today", True)])
def test_whatever_handler_it_is_no_argument_is_wrong(guest: OpenGuest, variant: str, exact: bool) -> None:
    """At the first instruction and behind the prologue: each argument is right or said to be unavailable."""
    one = guest(append="run=selftest", variant=variant, stopped=True)
    for name in HANDLERS:
        one.gdb.run(f"break *{one.gdb.address(name):#x}" if exact else f"break {name}")
    seen = set()
    for _ in range(20):
        one.gdb.run("continue")
        answer, truth = one.gdb.json("exo-syscall frame"), current_call(one)
        assert answer["number"] == truth.number
        for position, value in enumerate(answer["args"]):
            assert isinstance(value, dict) or int(value, 16) == truth.arguments[position], answer["arguments"]
        seen.add(truth.number)
    assert len(seen) >= 4


@pytest.mark.parametrize("variant", ["", "debug"])
def test_deep_in_what_a_handler_calls_nothing_is_wrong(guest: OpenGuest, variant: str) -> None:
    """The functions that a handler calls overwrite the registers that its caller's debug info still points at."""
    one = guest(append="run=selftest", variant=variant, stopped=True)
    one.gdb.run(f"break *{one.gdb.address('sys_fork'):#x}")
    one.gdb.run("continue")
    truth, known = current_call(one), 0
    for _ in range(30):
        one.gdb.run("stepi 29")
        answer = one.gdb.json("exo-syscall frame")
        assert answer["number"] == truth.number
        for position, value in enumerate(answer["args"]):
            known += not isinstance(value, dict)
            assert isinstance(value, dict) or int(value, 16) == truth.arguments[position], answer["arguments"]
    assert current_call(one) == truth, "the call was over before the end of this test"
    assert known or variant == ""


def test_strings_are_shown(guest: OpenGuest) -> None:
    one = guest()
    one.gdb.run("hbreak sys_ipc_send")
    one.gdb.run("continue")
    answer = one.gdb.json("exo-syscall frame")
    address, length = (int(answer["args"][position], 16) for position in (1, 2))
    message = one.gdb.memory(address, length).decode()
    assert answer["arguments"][1]["text"] == f'"{message}"'
    assert f'"{message}"' in one.gdb.run("exo-syscall frame")


@pytest.mark.parametrize("variant", ["", "stripped", "today"])
def test_at_every_instruction_of_the_stub_rip_rsp_and_number_are_right(guest: OpenGuest, variant: str) -> None:
    one = guest(variant=variant)
    address = stop_at_user_syscall(one)
    before = {name: one.gdb.integer(f"${name}") for name in ("rsp", "rbp", "rbx", "r15")}
    for _ in range(20):
        step_once(one.gdb)
        answer = one.gdb.json("exo-syscall frame")
        assert answer["state"] == "stub"
        assert answer["number"] == 4
        saved = {name: answer["saved"][name] for name in ("rip", *before)}
        assert {name: int(value, 16) for name, value in saved.items()} == {"rip": address + 2, **before}


def frame_after_a_call(one: Guest) -> dict[str, Any]:
    """Right behind a `syscall`. Should the timer come in there, the next call will do."""
    for _ in range(MOST_RETURNS):
        run_to(one, stop_at_user_syscall(one) + 2)
        answer: dict[str, Any] = one.gdb.json("exo-syscall frame")
        if answer["saved"]:
            return answer
    raise AssertionError(answer)


def test_in_user_mode_the_last_frame_is_stale(guest: OpenGuest) -> None:
    one = guest()
    answer = frame_after_a_call(one)
    assert answer["state"] == "user"
    assert answer["number"] == {"unavailable": "no system call is in progress"}
    assert {name: int(answer["saved"][name], 16) for name in ("rip", "rsp")} == {
        name: one.gdb.integer(f"${name}") for name in ("rip", "rsp")
    }
    assert "the last frame is stale" in one.gdb.run("exo-syscall frame")


def test_a_frame_that_an_interrupt_has_overwritten_is_not_shown(guest: OpenGuest) -> None:
    """An interrupt in user mode has its frame on the same stack, from the top down."""
    one = guest()
    top = int(frame_after_a_call(one)["base"], 16) + 64
    one.gdb.run("set language c")
    one.gdb.run(f"set {{unsigned long}}{top - 8:#x} = 0x23")
    answer = one.gdb.json("exo-syscall frame")
    assert (answer["state"], answer["saved"]) == ("user", {})
    assert "something else has used the kernel stack" in answer["number"]["unavailable"]
    assert "stale" not in one.gdb.run("exo-syscall frame")


@pytest.mark.parametrize("variant", ["", "today"])
def test_a_blocked_process_is_shown_from_its_own_stack(guest: OpenGuest, variant: str) -> None:
    one = guest(variant=variant)
    one.gdb.run("hbreak sys_ipc_send")
    blocked: list[CallTruth] = []
    for _ in range(MOST_SENDS):
        one.gdb.run("continue")
        current = current_call(one)
        blocked = [call for call in read_call_truths(one.gdb) if call.state == IN_PROGRESS and call != current]
        if blocked:
            break
    assert blocked, f"nobody waits in the first {MOST_SENDS} sends"
    for call in blocked:
        answer = one.gdb.json(f"exo-syscall frame --process {call.process}")
        expect_frame(answer, call)
        assert answer["state"] == "blocked"
        again = one.gdb.json(f"exo-syscall frame --stack {call.frame - 0x100:#x}")
        assert again["base"] == answer["base"]
        assert variant or "unavailable" in again["saved"]["rsp"]


def test_a_process_that_runs_is_shown_from_its_cpu(guest: OpenGuest) -> None:
    """What the kernel parked of it is from the last time it slept."""
    one = guest(smp=2)
    one.gdb.run("hbreak sys_ipc_send")
    one.gdb.run("continue")
    cpu = one.gdb.integer("$_gthread") - 1
    truth = current_call(one, cpu)
    one.gdb.run(f"thread {2 - cpu}")
    answer = one.gdb.json(f"exo-syscall frame --process {truth.process}")
    assert (answer["state"], answer["cpu"]) == ("call", cpu)
    expect_frame(answer, truth)
    assert f"process {truth.process}, on CPU {cpu}" in one.gdb.run(f"exo-syscall frame --process {truth.process}")


def test_another_cpu_is_shown_without_being_selected(guest: OpenGuest) -> None:
    one = guest(smp=2)
    one.gdb.run("hbreak sys_ipc_send")
    one.gdb.run("continue")
    stopped = one.gdb.integer("$_gthread") - 1
    one.gdb.run(f"thread {2 - stopped}")
    answer = one.gdb.json(f"exo-syscall frame --cpu {stopped}")
    expect_frame(answer, current_call(one, stopped))
    assert one.gdb.integer("$_gthread") - 1 == 1 - stopped


def take_nmi(guest: Guest) -> None:
    """Run to the handler of an NMI that arrives where the guest stands; `quick` guests take none."""
    guest.gdb.run("delete")
    guest.gdb.run("monitor nmi")
    guest.gdb.run("hbreak trap")
    guest.gdb.run("continue")
    guest.gdb.run("delete")


def test_in_an_interrupt_on_top_of_a_call_the_call_is_shown(guest: OpenGuest) -> None:
    one = guest(quick=False)
    one.gdb.run("hbreak sys_ipc_send")
    one.gdb.run("continue")
    take_nmi(one)
    answer = one.gdb.json("exo-syscall frame")
    expect_frame(answer, current_call(one))
    trace = one.gdb.run("bt")
    names = ("trap_common", "sys_ipc_send", "syscall_entry", "<system call 101 ipc_send>", "program_main")
    order = [trace.index(name) for name in names]
    assert order == sorted(order)


def test_in_an_interrupt_of_the_stub_the_call_is_shown(guest: OpenGuest) -> None:
    one = guest(quick=False)
    address = stop_at_user_syscall(one)
    rsp = one.gdb.integer("$rsp")
    one.gdb.run("stepi 7")
    take_nmi(one)
    answer = one.gdb.json("exo-syscall frame")
    assert (answer["state"], int(answer["saved"]["rip"], 16)) == ("stub", address + 2)
    assert int(answer["saved"]["rsp"], 16) == rsp
    assert "exo::calls::getpid" in one.gdb.run("bt")


def test_in_an_interrupt_of_the_program_there_is_no_call(guest: OpenGuest) -> None:
    one = guest(quick=False)
    stop_at_user_syscall(one)
    take_nmi(one)
    answer = one.gdb.json("exo-syscall frame")
    assert answer["state"] == "none"
    assert answer["saved"] == {}


def test_in_the_kernel_outside_a_call_there_is_no_frame(guest: OpenGuest) -> None:
    one = guest(stopped=True)
    one.gdb.run("hbreak exo_os::process::scheduler::idle")
    one.gdb.run("continue")
    answer = one.gdb.json("exo-syscall frame")
    assert (answer["state"], answer["saved"]) == ("none", {})


def test_wrong_questions_get_a_sentence(guest: OpenGuest) -> None:
    one = guest()
    one.gdb.run("hbreak sys_ipc_send")
    one.gdb.run("continue")
    assert "there is no CPU 7" in one.gdb.fails("exo-syscall frame --cpu 7")
    assert "there is no process 4711" in one.gdb.fails("exo-syscall frame --process 4711")
    assert "cannot read" in one.gdb.fails("exo-syscall frame --stack 0x10")
    assert "No symbol" in one.gdb.fails("exo-syscall frame --stack nowhere")
