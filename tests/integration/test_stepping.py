"""`exo-syscall next`, `finish` and `step` against what the kernel wrote down about each call."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from exogdb.launch.deadline import wait_until
from tests.harness.linux import open_linux
from tests.harness.session import Guest, open_guest
from tests.harness.truth import RETURNED, CallTruth, read_call_truths

BUSY = "receiver: 1024 messages"
ARGUMENT_COUNT = {"ipc_send": 3, "ipc_recv": 3, "getpid": 0, "write": 3}


@contextmanager
def at_work(smp: int = 1, variant: str = "") -> Iterator[Guest]:
    """The demonstration runs on every CPU, and is stopped somewhere in it."""
    with open_guest(smp=smp, variant=variant, attach=False) as guest:
        guest.qemu.wait_serial(BUSY)
        guest.gdb.run(f"target remote {guest.qemu.gdb_socket}")
        yield guest


def reach(guest: Guest, command: str, *where: str | None) -> dict[str, Any]:
    answer: dict[str, Any] = guest.gdb.json(command)
    assert answer["reached"] in where, answer["report"]
    assert guest.gdb.integer("$pc") == int(answer["rip"], 16)
    assert guest.gdb.integer("$_thread") == answer["cpu"] + 1
    return answer


def written_call(guest: Guest, entered: dict[str, Any], returned: dict[str, Any]) -> CallTruth | None:
    """The kernel's own record of a call that `next` and `finish` described."""
    place = (int(returned["rip"], 16), guest.gdb.integer("$rsp"), entered["number"])
    calls = [call for call in read_call_truths(guest.gdb) if (call.user_rip, call.user_rsp, call.number) == place]
    return max(calls, key=lambda call: call.sequence, default=None)


def follow_one_call(guest: Guest, name: str) -> tuple[dict[str, Any], CallTruth, int]:
    """A call of that name from entry to return: what `next` said, the kernel's record, and the value.

    The kernel keeps the last 256 calls of all CPUs: the record of one that slept for long is gone, so try again.
    """
    for _ in range(10):
        entered = reach(guest, f"exo-syscall next {name} --any-cpu", "entry")
        returned = reach(guest, "exo-syscall finish", "user")
        call = written_call(guest, entered, returned)
        if call is not None:
            return entered, call, int(returned["value"], 16)
    pytest.fail(f"ten calls of {name} were overtaken by 256 others each")


def no_waypoint_is_left(guest: Guest) -> None:
    assert "hw breakpoint" not in guest.gdb.run("maint info breakpoints")


@pytest.mark.parametrize(("smp", "variant"), [(4, ""), (1, "today")])
def test_next_and_finish_tell_what_the_kernel_wrote_down(smp: int, variant: str) -> None:
    with at_work(smp, variant) as guest:
        for name in ("ipc_send", "ipc_recv", "ipc_recv", "getpid", "write"):
            entered, call, value = follow_one_call(guest, name)
            assert entered["name"] == name
            assert int(entered["rip"], 16) == guest.gdb.address(
                "syscall_entry_asm" if variant == "today" else "syscall_entry"
            )
            assert call.state == RETURNED
            assert call.result == value == guest.gdb.integer("$rax")
            count = ARGUMENT_COUNT[name]
            given = tuple(int(argument, 16) for argument in entered["args"])
            assert call.arguments[:count] == given[:count]
        no_waypoint_is_left(guest)


def test_next_stays_on_its_cpu() -> None:
    with at_work(4) as guest:
        for cpu in (0, 1, 2, 3):
            guest.gdb.run(f"thread {cpu + 1}")
            for _ in range(3):
                assert reach(guest, "exo-syscall next", "entry")["cpu"] == cpu


@pytest.mark.parametrize("smp", [1, 4])
def test_a_call_that_sleeps_is_followed_while_others_run(smp: int) -> None:
    with at_work(smp) as guest:
        for _ in range(3):
            entered = reach(guest, "exo-syscall next ipc_recv --any-cpu", "entry")
            process = guest.gdb.integer("$cr3")
            returned = reach(guest, "exo-syscall finish", "user")
            assert guest.gdb.integer("$cr3") == process
            call = written_call(guest, entered, returned)
            assert call is None or call.result == int(returned["value"], 16)


def test_step_goes_from_user_code_into_the_handler_and_back_out() -> None:
    with at_work(4) as guest:
        reach(guest, "exo-syscall next --any-cpu", "entry")
        reach(guest, "exo-syscall finish", "user")
        for _ in range(3):
            process = guest.gdb.integer("$cr3")
            inside = reach(guest, "exo-syscall step", "handler")
            assert guest.gdb.integer("$pc") == guest.gdb.address(f"sys_{inside['name']}")
            assert guest.gdb.integer("$cr3") == process
            outside = reach(guest, "exo-syscall step", "user")
            assert guest.gdb.integer("$cr3") == process
            call = written_call(guest, inside, outside)
            assert call is None or call.result == int(outside["value"], 16)
        no_waypoint_is_left(guest)


@pytest.mark.parametrize("variant", ["today", "debug", "stripped"])
def test_step_finds_the_handler_in_every_build(variant: str) -> None:
    """Behind a table of function pointers, without optimisation, and without any symbol."""
    with at_work(variant=variant) as guest:
        reach(guest, "exo-syscall next 101", "entry")  # not just any: exec does not go back to where it came from
        reach(guest, "exo-syscall finish", "user")
        inside = reach(guest, "exo-syscall step", "handler")
        if variant == "stripped":
            assert inside["name"] is None
        else:
            assert guest.gdb.run("info symbol $pc").startswith(f"sys_{inside['name']}")
        outside = reach(guest, "exo-syscall step", "user")
        assert guest.gdb.integer("$rax") == int(outside["value"], 16)


def test_the_users_own_breakpoint_ends_a_step_and_is_reported() -> None:
    with at_work() as guest:
        reach(guest, "exo-syscall next ipc_recv --any-cpu", "entry")
        guest.gdb.run("break *syscall_dispatch")
        answer = reach(guest, "exo-syscall finish", None)
        assert answer["report"] == "breakpoint 1"
        assert guest.gdb.integer("$pc") == guest.gdb.address("syscall_dispatch")
        no_waypoint_is_left(guest)


@pytest.mark.parametrize("variant", ["", "today"])
def test_a_call_that_goes_back_elsewhere_ends_the_run_and_says_so(variant: str) -> None:
    """exec has the same kernel stack and another program; what `finish` would wait for never comes."""
    with at_work(variant=variant) as guest:
        for _ in range(5):  # one that fails returns as any other call does
            reach(guest, "exo-syscall next exec --any-cpu", "entry")
            came_from = guest.gdb.integer("$rcx")
            answer = guest.gdb.json("exo-syscall finish")
            if answer["reached"] is None:
                break
        assert answer["reached"] is None
        assert f"not to {came_from:#x} where it came from: exec has replaced the program" in answer["report"]
        assert answer["rip"] == guest.gdb.json("exo-syscall abi")["dispatcher"]["return"]
        no_waypoint_is_left(guest)


def test_ctrl_c_ends_a_step_and_leaves_nothing_behind() -> None:
    """Most of the time GDB is in the middle of a stop for somebody else's call."""
    with at_work() as guest:
        reach(guest, "exo-syscall next exit --any-cpu", "entry")
        for _ in range(5):
            guest.gdb.resume("exo-syscall next unknown --any-cpu")
            guest.gdb.interrupt()
            assert "was stopped on the way: Ctrl-C" in guest.gdb.finish().out
        reach(guest, "exo-syscall next exit --any-cpu", "entry")
        guest.gdb.resume("exo-syscall finish")
        guest.gdb.interrupt()
        reply = guest.gdb.finish()
        # A process that got the stack may have been quicker than Ctrl-C.
        assert re.search("was stopped on the way: (Ctrl-C|on the call's kernel stack)", reply.out), reply
        no_waypoint_is_left(guest)
        reach(guest, "exo-syscall next --any-cpu", "entry")


def test_what_makes_no_sense_is_one_sentence() -> None:
    with at_work() as guest:
        reach(guest, "exo-syscall next", "entry")
        reach(guest, "exo-syscall finish", "user")
        assert guest.gdb.fails("exo-syscall finish") == (
            "CPU 0 is not inside a system call: `exo-syscall next` goes to the next one"
        )
        guest.gdb.run(f"tbreak *{guest.gdb.address('trap'):#x}")
        guest.gdb.run("continue")
        assert guest.gdb.fails("exo-syscall step") == (
            "CPU 0 is in the kernel, outside a system call: nothing to step across"
        )
        assert "no system call" in guest.gdb.fails("exo-syscall next no_such_call")


@pytest.mark.parametrize(("cpu", "smp"), [("qemu64", 2), ("Skylake-Client", 1)])
def test_on_the_distributions_linux(cpu: str, smp: int) -> None:
    """With an Intel CPU the entry stub runs on the user's page tables first, where its slots cannot be read."""
    with open_linux(smp, cpu) as (guest, _):
        for _ in range(2):
            entered = reach(guest, "exo-syscall next getppid --any-cpu", "entry")
            assert [int(each, 16) for each in entered["args"]] == [0x11, 0x22, 0x33, 0x44, 0x55, 0x66]
            returned = reach(guest, "exo-syscall finish", "user")
            assert guest.gdb.integer("$pc") == guest.gdb.address("getppid_syscall") + 2
            # The program's first process is 1, the others are its children.
            assert int(returned["value"], 16) in (0, 1)
        # The next call of this process sleeps; the other CPU, if there is one, and the idle loop go on meanwhile.
        # For Intel CPUs Linux calls handlers by way of `ret`, which may hide them behind the dispatcher.
        inside = reach(guest, "exo-syscall step", *(["handler"] if cpu == "qemu64" else ["handler", "dispatcher"]))
        assert inside["name"] == "clock_nanosleep"
        sleeping = guest.gdb.integer("$cr3") & ~0x1FFF
        outside = reach(guest, "exo-syscall step", "user")
        assert (outside["value"], guest.gdb.integer("$cr3") & ~0x1FFF) == ("0x0", sleeping)
        no_waypoint_is_left(guest)


def test_the_text_names_call_and_place() -> None:
    with at_work() as guest:
        text = guest.gdb.run("exo-syscall next getpid")
        assert text.splitlines()[0].startswith("CPU 0 enters system call 4 getpid(")
        assert "syscall_entry" in text
        text = guest.gdb.run("exo-syscall finish")
        assert text.startswith(f"CPU 0 is back in user space: the call returned {guest.gdb.integer('$rax')}\n")
        assert "getpid" in guest.gdb.run("complete exo-syscall next getp")


def seconds_run(guest: Guest) -> float:
    """CPU time of QEMU."""
    fields = Path(f"/proc/{guest.qemu.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_finish_of_fork_ends_in_the_parent() -> None:
    """A tick is due when the parent's SYSRET lets it in: the child runs first, at the same rip and rsp."""
    with open_guest("run=demo") as guest:
        gdb = guest.gdb
        gdb.json("exo-syscall next fork --any-cpu")
        parent = gdb.integer("$cr3")
        back = int(gdb.json("exo-syscall abi")["dispatcher"]["return"], 16)
        gdb.run(f"tbreak *{back:#x} if $cr3 == {parent}")
        gdb.run("continue")
        # Interrupts are off. Let a tick's time pass here, as the fork of a larger program takes it.
        code = int.from_bytes(gdb.memory(back, 2), "little")
        gdb.run("set language c")
        gdb.run(f"set *(unsigned short *){back:#x} = 0xfeeb")  # a jump to itself
        begin = seconds_run(guest)
        gdb.resume()
        wait_until(lambda: seconds_run(guest) > begin + 0.2, 20, "a tick's time")
        gdb.interrupt()
        gdb.finish()
        gdb.run(f"set *(unsigned short *){back:#x} = {code:#x}")
        child = gdb.integer("$rax")
        assert (gdb.integer("$rip"), gdb.integer("$cr3")) == (back, parent)
        assert int(gdb.json("exo-syscall finish")["value"], 16) == child > 0
        assert gdb.integer("$cr3") == parent
