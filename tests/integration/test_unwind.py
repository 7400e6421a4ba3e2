"""Backtraces across the boundary: at every instruction from the user's SYSCALL to behind SYSRET."""

import json
import re
import subprocess
from typing import Any

import pytest

from tests.harness.session import Guest
from tests.integration.conftest import OpenGuest

# Steps through one system call inside GDB, and says at every instruction what the frame behind the boundary has.
# Of a loop the first turn is looked at: the others are at the same instructions with the same stack pointer.
SNIPPET = """
import gdb, json
from gdb.frames import execute_frame_filters  # what `bt` itself calls; GDB's own text costs five times as much
KEPT = ("rip", "rsp", "rbp", "rbx", "r12", "r13", "r14", "r15", "eflags")
OTHERS = ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9")
def registers(frame):
    found = {name: frame.read_register(name) for name in KEPT + OTHERS}
    return {name: int(value) % (1 << 64) for name, value in found.items() if not value.is_optimized_out}
def user_registers():
    frame = gdb.newest_frame()
    while frame is not None and frame.pc() >> 47:
        frame = frame.older()
    return registers(frame) if frame is not None else {}
def names():
    frames = execute_frame_filters(gdb.newest_frame(), 0, -1)
    if frames is None:  # no filter is enabled: `bt` shows GDB's own names
        frame, plain = gdb.newest_frame(), []
        while frame is not None:
            plain.append(frame.name())
            frame = frame.older()
        return plain
    return [str(frame.function()) for frame in frames]
def walk():
    steps, seen = [], set()
    start = gdb.newest_frame().pc()
    while True:
        try:
            gdb.execute("stepi", to_string=True)
        except gdb.error:
            pass  # sources of the standard library that are not there
        frame = gdb.newest_frame()
        pc = frame.pc()
        if int(frame.read_register("cs")) & 3:
            if pc == start:
                continue  # QEMU had something else to do first, and ended the step before the instruction
            break
        place = (pc, int(frame.read_register("rsp")))
        if place in seen:
            continue
        seen.add(place)
        steps.append({"pc": pc, "user": user_registers(), "names": names()})
    print()
    print(json.dumps(steps))
"""
KEPT = ("rip", "rsp", "rbp", "rbx", "r12", "r13", "r14", "r15", "eflags")
WALK_SECONDS = 100.0


def find_syscall(guest: Guest, program: str, function: str) -> int:
    """The address of the SYSCALL instruction in a user program's `function`, by objdump."""
    (elf,) = (path for path in guest.kernel.programs if path.stem == program)
    command = ["objdump", "-d", "-C", f"--disassemble={function}", str(elf)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    (address,) = re.findall(r"^\s*([0-9a-f]+):.*\tsyscall\s*$", listing, re.MULTILINE)
    return int(address, 16)


def stop_at_user_syscall(guest: Guest, call: str = "getpid") -> int:
    address = find_syscall(guest, "worker", f"exo::calls::{call}")
    guest.gdb.run(f"hbreak *{address:#x}")
    guest.gdb.run("continue")
    guest.gdb.run("delete")
    assert guest.gdb.integer("$rip") == address
    return address


def define_snippet(guest: Guest) -> None:
    lines = SNIPPET.strip().splitlines()
    guest.gdb.run(f"python exec({chr(10).join(lines)!r}, globals())")


# Of `today` a call whose result is another than its number, because both have the same slot of the frame: the
# worker's pid, 4, is getpid's number.
CALLS = {"today": ("ipc_close", 103)}
LOST = "<system call> (number unavailable: "
UNSURE = ", or already the result)"


def check_names(step: dict[str, Any], programs: list[str], entry: str, stub: set[int]) -> None:
    """The functions that `bt` shows: the kernel's, the boundary, the program's as before."""
    place = hex(step["pc"])
    *kernel, boundary = step["names"][: -len(programs)]
    assert step["names"][-len(programs) :] == programs, place
    assert boundary.startswith("<system call"), place
    assert kernel[-1] == entry, place
    assert (len(kernel) == 1) == (step["pc"] in stub), place


def check_number(boundary: str, name: str, number: int, variant: str, *, is_over: bool) -> None:
    """Never a wrong number: the right one, a doubtful one that says so, or the reason why there is none."""
    if is_over:  # and the stub, in which no build keeps the number beside the result
        assert boundary.startswith(LOST)
    elif boundary.endswith(UNSURE):
        assert variant == "today"
    elif boundary.startswith(LOST):
        assert variant != "today"
    else:
        assert boundary in (f"<system call {number}>", f"<system call {number} {name}>")


@pytest.mark.parametrize("variant", ["", "debug", "stripped", "today"])
def test_the_user_frame_is_right_at_every_instruction(guest: OpenGuest, variant: str) -> None:
    one = guest(variant=variant)
    name, number = CALLS.get(variant, ("getpid", 4))
    address = stop_at_user_syscall(one, name)
    define_snippet(one)
    before = json.loads(one.gdb.run("python print(json.dumps(registers(gdb.newest_frame())))"))
    programs = json.loads(one.gdb.run("python print(json.dumps(names()))"))
    steps: list[dict[str, Any]] = json.loads(one.gdb.reply("python walk()", WALK_SECONDS).out.splitlines()[-1])
    assert one.gdb.integer("$rip") == address + 2
    assert len(steps) > 60
    possible = {"rax": {before["rax"], one.gdb.integer("$rax")}} if variant == "today" else {}
    abi = one.gdb.json("exo-syscall abi")
    returned_at = int(abi["dispatcher"]["return"], 16)
    stub = {int(line["address"], 16) for line in abi["instructions"]}
    coming = [step["pc"] for step in steps].index(returned_at)
    for place, step in enumerate(steps):
        kept = {name: step["user"].get(name) for name in KEPT}
        assert kept == {**{name: before[name] for name in KEPT}, "rip": address + 2}, hex(step["pc"])
        check_names(step, programs, steps[0]["names"][0], stub)
        boundary = step["names"][-len(programs) - 1]
        check_number(boundary, name, number, variant, is_over=place >= coming)
        if place < coming:  # of the others nothing is invented: they are what the program had, or not there
            for other, value in step["user"].items():
                assert other in KEPT or value in possible.get(other, {before[other]}), (other, hex(step["pc"]))
    # Known all the way into the dispatcher, before debug info has its parameters; without debug info, to its first
    # instruction, because nothing says how far it goes and what may lead back.
    named = [not step["names"][-len(programs) - 1].startswith(LOST) for step in steps]
    entered = next(place for place, step in enumerate(steps) if step["pc"] not in stub)
    assert False not in named[: entered + (1 if variant == "stripped" else 3)]


def test_a_backtrace_names_the_call_and_reaches_the_program(guest: OpenGuest) -> None:
    one = guest()
    one.gdb.run("hbreak sys_ipc_send")
    one.gdb.run("continue")
    trace = one.gdb.run("bt")
    assert re.search(r"^#\d+ +<system call 101 ipc_send>", trace, re.MULTILINE), trace
    order = [trace.index(name) for name in ("syscall_dispatch", "syscall_entry", "<system call", "program_main")]
    assert order == sorted(order)


def test_without_frame_filters_the_boundary_is_named_too(guest: OpenGuest) -> None:
    one = guest()
    one.gdb.run("hbreak sys_ipc_send")
    one.gdb.run("continue")
    frames = one.gdb.run("bt -no-filters")
    assert "in <system call> ()" in frames
    assert "__morestack" not in frames
    assert 'func="<system call>"' in one.gdb.run('interpreter-exec mi2 "-stack-list-frames"')
    one.gdb.run("frame function <system call>")
    assert one.gdb.integer("$rsp") < 1 << 47


def test_the_boundary_has_a_frame_as_any_other(guest: OpenGuest) -> None:
    one = guest()
    one.gdb.run("hbreak sys_ipc_send")
    one.gdb.run("continue")
    one.gdb.run("frame function <system call>")
    assert "Previous frame's sp is" in one.gdb.run("info frame")  # it reads the function's code


def test_arguments_that_calls_have_overwritten_are_not_shown(guest: OpenGuest) -> None:
    """The optimised dispatcher has them in registers alone, where GDB shows what the handler has put there."""
    one = guest()
    one.gdb.run("hbreak sys_ipc_send")
    one.gdb.run("continue")
    sent = [one.gdb.integer(name) for name in ("channel", "message", "length")]
    for _ in range(2):
        (dispatcher,) = re.findall(r"syscall_dispatch\s*\((.*?)\)", one.gdb.run("bt"))
        shown = re.findall(r"arg[123]=(\S+?)(?:,|$)", dispatcher.replace("not saved", "lost"))
        for argument, value in zip(sent, shown, strict=True):
            assert value in (str(argument), "<lost>"), dispatcher
        one.gdb.run("stepi 40")
    assert "arg2=<not saved>" in one.gdb.run("bt")


def test_user_frames_have_their_variables(guest: OpenGuest) -> None:
    one = guest()
    one.gdb.run("hbreak sys_ipc_send")
    one.gdb.run("continue")
    one.gdb.run("frame function exo::calls::ipc_send")
    assert one.gdb.integer("$rip") < 1 << 47
    assert "syscall" in one.gdb.run("x/i $rip-2")


def test_other_backtraces_are_untouched(guest: OpenGuest) -> None:
    with_plugin, without = guest(stopped=True), guest(stopped=True, plugin=False)
    traces = []
    for one in (with_plugin, without):
        one.gdb.run("hbreak init_syscall")
        one.gdb.run("continue")
        traces.append(one.gdb.run("bt"))
    assert traces[0] == traces[1]
    stop_at_user_syscall(with_plugin)
    assert "<system call" not in with_plugin.gdb.run("bt")
