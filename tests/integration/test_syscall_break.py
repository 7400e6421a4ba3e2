"""A breakpoint on a system call stops as often as the kernel itself says that the call was made."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.gdb import Gdb
from tests.harness.kernel import ROOT
from tests.harness.truth import RETURNED, CpuTruth, read_call_truths, read_cpu_truths, read_last_sequence
from tests.integration.conftest import OpenGuest
from tests.integration.stops import hits, step_once, stopped_at

VARIANTS = ["", "debug", "today"]
NUMBERS = (0, 1, 2, 3, 4, 100, 101, 102, 103, 200, 201, 202, 300, 301, 302, 303)
NEVER = 1_000_000
CALLS, SOME, MOST_TIMES = 90, 20, 6  # together less than the kernel remembers
MOST_STEPS = 1000  # what writing a call down takes without optimisation, and more
STEPS = 8  # at once; far fewer than what a call takes after that
ENTRY = {"": "syscall_dispatch", "debug": "syscall_dispatch", "today": "syscall_rust_handler"}


class Truth:
    """What the kernel wrote down about its calls, read with GDB's own words."""

    def __init__(self, gdb: Gdb) -> None:
        self._gdb = gdb

    def last_call(self, cpu: int = 0) -> tuple[int, int, int]:
        """(number, process, first argument) of the last call that started on `cpu`."""
        base = self._gdb.address("EXO_TRUTH")
        cpu_size, call_size = self._word(base + 16), self._word(base + 24)
        sequence = self._word(base + 48 + cpu * cpu_size + 15 * 8)
        calls = base + 48 + 8 * cpu_size
        record = calls + sequence % 256 * call_size
        return self._word(record + 32), self._word(record + 24), self._word(record + 40)

    def _word(self, address: int) -> int:
        return int.from_bytes(self._gdb.memory(address, 8), "little")


def for_each_busy_cpu(gdb: Gdb) -> Iterator[CpuTruth]:
    """The other CPUs that are in the kernel for a process, each selected in its turn.

    The one that GDB stands on is at the dispatcher's entry, and selected again in the end.
    """
    here = gdb.integer("$_thread")
    for index, cpu in enumerate(read_cpu_truths(gdb)):
        gdb.run(f"thread {index + 1}")
        if index + 1 != here and cpu.current_process and gdb.integer("$cs") & 3 == 0:
            yield cpu
    gdb.run(f"thread {here}")


def calls_on_their_way(gdb: Gdb) -> list[int]:
    """Sequence numbers of the calls that other CPUs are in: whether they were at their place yet, nobody knows.

    The last that a CPU began, and the last of the process that it runs, which may have begun it elsewhere.
    """
    last_of = {
        call.process: call.sequence for call in sorted(read_call_truths(gdb), key=lambda call: call.sequence)
    }
    return [
        sequence
        for cpu in for_each_busy_cpu(gdb)
        for sequence in (cpu.last_sequence, last_of.get(cpu.current_process, 0))
    ]


def find_unread(gdb: Gdb) -> set[int]:
    """The calls that are being written down: they cannot be read until their CPU has gone on."""
    return {*range(1, read_last_sequence(gdb) + 1)} - {call.sequence for call in read_call_truths(gdb)}


def finish_writing(gdb: Gdb) -> None:
    """Step the CPUs that were stopped in the middle of writing a call down, each alone, until it can be read.

    No CPU gets out of the kernel: there it would go on to calls that no breakpoint sees any more. First those that
    write their last call down; then one that writes what an earlier call returned, if there is any.
    """
    gdb.run("set scheduler-locking on")
    for is_last in (True, False):
        for cpu in for_each_busy_cpu(gdb):
            for _ in range(0, MOST_STEPS, STEPS):
                unread = find_unread(gdb)
                if not unread or (is_last and cpu.last_sequence not in unread) or gdb.integer("$cs") & 3:
                    break
                gdb.run(f"stepi {STEPS}")
    gdb.run("set scheduler-locking off")


@pytest.mark.parametrize("variant", VARIANTS)
def test_stops_at_101_and_at_nothing_else(guest: OpenGuest, variant: str) -> None:
    gdb = guest("run=demo", variant=variant).gdb
    made = gdb.run("exo-syscall break 101")
    assert made.startswith("Breakpoint 1 on system call 101 (ipc_send) at 0x"), made
    for _ in range(5):
        output = gdb.run("continue")
        assert stopped_at(output) == 101
        number, process, channel = Truth(gdb).last_call()
        assert number == 101
        assert f"by process {process} on CPU 0" in output
        assert f"channel={channel}," in output
    assert "breakpoint already hit 5 times" in gdb.run("info breakpoints")


@pytest.mark.parametrize(("variant", "smp"), [("", 1), ("", 4), ("debug", 1), ("today", 4)])
def test_every_number_stops_exactly_as_often_as_the_kernel_says(guest: OpenGuest, variant: str, smp: int) -> None:
    gdb = guest("run=demo", variant=variant, smp=smp, stopped=True).gdb
    for number in NUMBERS:
        made = gdb.run(f"exo-syscall break {number} --ignore {NEVER}")
        assert "pending" in made, "the kernel has not run yet"
    gdb.run(f"exo-syscall break unknown --ignore {NEVER}")
    gdb.run(f"exo-syscall break all --on-return --ignore {NEVER}")
    gdb.run(f"exo-syscall break all --ignore {NEVER}")
    gdb.run(f"exo-syscall break all --if '$nr == 101' --ignore {NEVER}")
    gdb.run(f"exo-syscall break all --if '101 == $nr++' --ignore {NEVER}")
    entry = gdb.address(ENTRY[variant])
    gdb.run(f"break *{entry:#x}")
    counting = gdb.integer("$bpnum")
    for more in (CALLS, *[SOME] * MOST_TIMES):  # which program gets how far is up to the CPUs
        gdb.run(f"ignore {counting} {more}")
        gdb.run("continue", 100)
        on_their_way = calls_on_their_way(gdb)
        if {*NUMBERS} <= {call.number for call in read_call_truths(gdb) if call.sequence not in on_their_way}:
            break
    gdb.run("disable")
    finish_writing(gdb)
    on_their_way += calls_on_their_way(gdb)
    calls = read_call_truths(gdb)
    assert len(calls) == calls[-1].sequence >= CALLS - 10, "none is lost from the record"
    done = Counter(call.number for call in calls if call.sequence not in on_their_way)
    known = Counter(call.number for call in calls)
    assert all(done[number] for number in NUMBERS), "every number is tried"
    for row, number in enumerate(NUMBERS, 1):
        assert done[number] <= hits(gdb, row) <= known[number], f"{number}: {done[number]} to {known[number]}"
    assert hits(gdb, 17) == sum(count for number, count in known.items() if number not in NUMBERS)
    returned = [call.sequence for call in calls if call.state == RETURNED]
    assert len({*returned} - {*on_their_way}) <= hits(gdb, 18) <= len(returned)
    # A CPU at the dispatcher's first instruction, or right behind it, has not written its call down yet.
    assert done.total() <= hits(gdb, 19) <= known.total() + smp
    assert done[101] <= hits(gdb, 20) <= known[101] + smp
    assert done[101] <= hits(gdb, 21) <= known[101], "decided where it stops"
    plans = [entry["plan"] for entry in gdb.json("exo-syscall list")["syscalls"]]
    assert all(plan["kind"] != "condition at the dispatcher" for plan in plans), "each has a place of its own"


def test_choosing_hits(guest: OpenGuest) -> None:
    gdb = guest("run=demo").gdb
    gdb.run("exo-syscall break ipc_send --if '$arg3 > 100000'")
    gdb.run("exo-syscall break ipc_send,ipc_recv --on-return --if '$ret > 0' --temporary")
    listed = gdb.run("info breakpoints")
    assert "-probe syscall:ipc_send?if=$arg3>100000\n" in listed, "in the user's words"
    assert "-probe syscall:ipc_send,ipc_recv?on-return&if=$ret>0\n" in listed
    output = gdb.run("continue")
    process = int(output.rpartition("by process ")[2].split()[0])
    # Others may have begun calls while this one waited.
    last_call = [call for call in read_call_truths(gdb) if call.process == process][-1]
    assert (stopped_at(output), RETURNED) == (last_call.number, last_call.state)
    assert last_call.number in (101, 102)
    assert f"= {last_call.result} by process {process}" in output
    assert gdb.integer("$rax") == gdb.integer("$ret") == last_call.result
    assert "No breakpoint" in gdb.run("info breakpoints 2"), "it was temporary"
    gdb.run("exo-syscall break all --if '$nr == 101' --ignore 20 --temporary")
    output = gdb.run("continue")
    assert Truth(gdb).last_call()[0] == stopped_at(output) == 101
    assert gdb.integer("$pc") == gdb.address("sys_ipc_send"), (
        "at the handler, whatever is decided at the dispatcher"
    )
    assert f"length={gdb.integer('$arg3')}) by process" in output
    # Who calls often: the record keeps the last 256 calls of all.
    busy = Counter(call.process for call in read_call_truths(gdb) if call.number in (101, 102))
    process = busy.most_common(1)[0][0]
    together = "--temporary --ignore 2 --cpu 0 --on-return --if '$ret > 0'"
    gdb.run(f"exo-syscall break ipc_send, ipc_recv --process {process} {together}")
    last = read_last_sequence(gdb)
    assert stopped_at(gdb.run("continue")) in (101, 102)
    since = [call for call in read_call_truths(gdb) if call.sequence > last and call.process == process]
    chosen = [call for call in since if call.number in (101, 102) and call.state == RETURNED]
    assert [0 < call.result < 1 << 63 for call in chosen].count(True) == 3, since
    assert "No breakpoint" in gdb.run("info breakpoints 4"), "it was temporary"
    gdb.run(f"exo-syscall break write --process {process}")
    gdb.run(f"exo-syscall break %ipc,write --process {process} --cpu 0")
    output = gdb.run("continue")
    assert Truth(gdb).last_call()[:2] == (stopped_at(output), process)


def test_a_call_that_never_returns_is_not_reported_when_its_stack_is_used_again(guest: OpenGuest) -> None:
    """Two CPUs, so that stacks are not watched, and a kernel without names, so that no process has a number."""
    gdb = guest("run=demo", variant="stripped", smp=2).gdb
    gdb.run("exo-syscall break 0 --on-return")
    gdb.run("exo-syscall break 2 --on-return --ignore 2")
    output = gdb.run("continue")
    assert "System call 2 (" in output, "each program that was started had ended before"
    assert hits(gdb, 1) == 0


def test_commands_are_read_where_the_user_types(guest: OpenGuest) -> None:
    gdb = guest("run=demo").gdb
    typed = ["exo-syscall break ipc_send --commands", "silent", 'printf "number %d\\n", $nr', "end"]
    assert gdb.run("\n".join(typed)).startswith("Breakpoint 1 on system call 101")
    output = gdb.run("continue")
    assert "number 101" in output
    assert "System call" not in output, "`silent` is meant for this line, too"


def test_it_is_an_ordinary_breakpoint(guest: OpenGuest, tmp_path: Path) -> None:
    one = guest("run=demo", attach=False)
    gdb = one.gdb
    assert "pending" in gdb.run("exo-syscall break SYS_IPC_SEND")
    gdb.run(f"target remote {one.qemu.gdb_socket}")
    assert stopped_at(gdb.run("continue")) == 101
    gdb.run("condition 1 ($arg3 == 0) || ($arg3 == 77777)")
    assert " && (($arg3 == 0) || ($arg3 == 77777))" in gdb.run("info breakpoints"), "on top of what it is for"
    gdb.run("tbreak -probe syscall:read")
    assert stopped_at(gdb.run("continue")) == 302
    assert "No breakpoint" in gdb.run("info breakpoints 2")
    gdb.run("condition 1")
    saved = tmp_path / "saved"
    gdb.run(f"save breakpoints {saved}")
    gdb.run("delete")
    gdb.run(f"source {saved}")
    assert stopped_at(gdb.run("continue")) == 101
    gdb.run("disable")
    gdb.run("exo-syscall break getpid")
    assert stopped_at(gdb.run("continue")) == 4
    before = gdb.word("SYSCALL_COUNT")
    for _ in range(20):  # it may get no time at all between the two
        gdb.run("detach")
        gdb.run(f"target remote {one.qemu.gdb_socket}")
        if gdb.word("SYSCALL_COUNT") > before:
            break
    else:
        pytest.fail("the guest did not run on without breakpoints")


def test_mistakes_are_one_sentence(guest: OpenGuest) -> None:
    gdb = guest("run=demo").gdb
    for words, sentence in {
        "ipc_sned": "no system call is called 'ipc_sned' in .*; did you mean ipc_send",
        "999": "no system call has number 999 in .*; `unknown` chooses the numbers that the table lacks",
        "%net": "there is no group %net; the groups are %process, %ipc, %memory, %file",
        "101 --cpu 7": "there is no CPU 7: the guest has only CPU 0",
        "101 --if '$arg1 =='": r"`--if \$arg1 ==`: (A syntax error|unexpected token)",
        "101 --if 'chanel == 64'": r"`--if chanel == 64`: No symbol .chanel. in current context",
        "101 --on-return --if 'channel == 64'": r"`--if channel == 64`: No symbol .channel. in current context",
        "101 --ignore -1": "--ignore takes how many hits to pass over, from 0 to 2147483647",
        "101 --ignore 4294967296": "--ignore takes how many hits to pass over, from 0 to 2147483647",
        "101 --if '$ret < 0'": r"`--if \$ret < 0`: \$ret is known when a call returns: add --on-return",
        "101 --process -1": "no process has the number -1",
        "-5": "'-5' is no number and no range",
    }.items():
        assert re.fullmatch(f"{sentence}.*", gdb.fails(f"exo-syscall break {words}")), words
    assert gdb.run("info breakpoints").startswith("No breakpoints")
    gdb.run("exo-syscall break 101 --if 'channel == 64 && $arg3 == $arg3'")  # a parameter of the handler


@pytest.mark.parametrize("variant", ["", "stripped"])
def test_a_backtrace_at_the_return_names_the_call(guest: OpenGuest, variant: str) -> None:
    """Nothing in the guest keeps the number by then; the breakpoint knows it, for as long as the guest stands."""
    gdb = guest("run=demo", variant=variant).gdb
    gdb.run("exo-syscall break 101 --on-return")
    gdb.run("continue")
    assert "<system call 101" in gdb.run("bt")
    assert gdb.json("exo-syscall frame")["number"] == 101
    gdb.run("delete")
    step_once(gdb)
    assert "<system call>" in gdb.run("bt")


def test_two_breakpoints_on_one_arm(guest: OpenGuest, tmp_path: Path) -> None:
    """5 and 6 share the arm of all that the kernel does not know; 5 is called, rarely, and 6 never."""
    table = tmp_path / "numbers.rs"
    table.write_text("const SYS_GETPID: u64 = 4;\nconst SYS_SEEN: u64 = 5;\nconst SYS_OTHER: u64 = 6;\n")
    gdb = guest("run=spin rare=5", variant="today", smp=2, stopped=True).gdb
    gdb.run(f"set exo syscalls {table}")
    for calls in ("other", f"seen,other --ignore {NEVER}", "seen"):
        gdb.run(f"exo-syscall break {calls}")
    assert stopped_at(gdb.run("continue")) == 5
    assert [hits(gdb, row) for row in (1, 2, 3)] == [0, 1, 1]
    plan = gdb.json("exo-syscall list seen")["syscalls"][0]["plan"]
    assert plan["shared_with"] == [6]
    assert plan["cost"] == "one stop per call of the numbers that share the arm"


def test_numbers_that_the_table_lacks(guest: OpenGuest) -> None:
    gdb = guest("run=selftest", stopped=True).gdb
    gdb.run("exo-syscall break unknown")
    gdb.run("exo-syscall break unknown --on-return --if '$nr == 999'")
    for number in (5, 99, 104):  # in the order in which the program tries them
        output = gdb.run("continue")
        assert f"System call {number} (arg1=0x0, " in output
        assert gdb.integer("$rdi") == gdb.integer("$nr") == number
    assert hits(gdb, 2) == 0


@pytest.mark.parametrize("variant", ["debug", "today"])
def test_a_number_that_the_kernel_takes_for_another_is_told(guest: OpenGuest, variant: str) -> None:
    """As if user space had put more into rax than the kernel looks at.

    `today` keeps what the entry stub saved, a debug build the dispatcher's own copies.
    """
    gdb = guest("run=demo", variant=variant).gdb
    kept, before = {
        "debug": ("the number that the dispatcher keeps in [rsp+0x", f"*{gdb.address('sys_ipc_send'):#x}"),
        "today": ("the number that the entry stub saved", "exo_os::syscall::dispatch::get_handler if $rdi == 101"),
    }[variant]
    assert kept in gdb.run("exo-syscall break ipc_send --explain")
    gdb.run(f"tbreak {before}")
    gdb.run("set language c")
    gdb.run("continue")
    stack = gdb.integer("$rsp")
    words = gdb.memory(stack, -stack % 0x1000)  # up to the top
    for at in range(0, len(words), 8):
        if int.from_bytes(words[at : at + 8], "little") == 101:
            gdb.run(f"set var *(unsigned long *) {stack + at:#x} = 0x65000001")
    for _ in range(MOST_TIMES):  # a tick may come first, and another process
        output = gdb.run("continue")
        assert stopped_at(output) == 101
        if "; its number" in output:
            break
    assert "; its number is 0x65000001, which the kernel takes for this one" in output
    assert gdb.integer("$nr") == 0x65000001
    output = gdb.run("continue")
    assert (stopped_at(output), gdb.integer("$nr"), "its number" in output) == (101, 101, False)


def test_a_handler_that_the_kernel_calls_itself_is_no_system_call(guest: OpenGuest) -> None:
    gdb = guest("run=demo", variant="debug").gdb
    gdb.run("exo-syscall break getpid")
    gdb.run("continue")
    here = gdb.integer("$pc")
    gdb.run("set language c")
    handler = gdb.address("sys_getpid")
    assert gdb.integer(f"((unsigned long (*)(void)){handler:#x})()") == Truth(gdb).last_call()[1]
    assert hits(gdb, 1) == 1, "called from elsewhere than the dispatcher"
    assert gdb.integer("$pc") == here


def test_saved_breakpoints_in_another_gdb(guest: OpenGuest, tmp_path: Path) -> None:
    gdb = guest("run=demo").gdb
    gdb.run("exo-syscall break %ipc,!ipc_recv --if '$arg3 > 8 && $nr == 101'")
    gdb.run("exo-syscall break getpid,ipc_recv --on-return --ignore 1000000")
    gdb.run("exo-syscall break ipc_send")
    gdb.run("disable 3")
    saved = tmp_path / "saved"
    gdb.run(f"save breakpoints {saved}")
    disabled = [line for line in saved.read_text().splitlines() if line.startswith("disable")]
    assert disabled == ["disable $bpnum"], "the third, and no location"
    one = guest("run=demo", attach=False)
    gdb = one.gdb
    gdb.run("set breakpoint pending on")
    gdb.reply(f"source {saved}")  # says that the probes are not there yet
    gdb.reply(f"target remote {one.qemu.gdb_socket}")  # and that they are still not there
    before = read_last_sequence(gdb)
    returned = stops = 0
    while returned == 0 or stops < 8:
        assert stopped_at(gdb.run("continue")) == 101
        calls = [call for call in read_call_truths(gdb) if call.sequence > before and call.number in (4, 102)]
        returned, stops = sum(call.state == RETURNED for call in calls), stops + 1
        assert hits(gdb, 2) == returned, "as often as the kernel says"
        assert stops < 100, "the guest calls one of them now and then"
    assert hits(gdb, 3) == 0, "it was disabled"
    gdb.run("delete")
    gdb.reply(f"source {saved}")
    assert stopped_at(gdb.run("continue")) == 101, "the same while it is attached"


@pytest.mark.parametrize("choice", ["unknown", "all", "!getpid"])
@pytest.mark.parametrize("variant", ["", "debug"])
def test_a_number_that_only_the_table_lacks_is_seen(
    guest: OpenGuest, tmp_path: Path, variant: str, choice: str
) -> None:
    """The file is that of an older kernel: this one handles calls that are not in it."""
    gdb = guest(variant=variant).gdb
    lines = (ROOT / "kernel/src/syscall/numbers.rs").read_text().splitlines()
    numbers = tmp_path / "numbers.rs"
    numbers.write_text("\n".join(line for line in lines if "SYS_IPC" not in line))
    gdb.run(f"set exo syscalls {numbers}")
    gdb.run(f"exo-syscall break {choice} --if '$nr == 101'")
    gdb.run("set language c")
    gdb.run(f"break *{gdb.address('sys_ipc_send'):#x}")
    assert "System call 101 (" in gdb.run("continue")


def test_another_calls_handler_that_jumps_to_this_ones_is_no_such_call(guest: OpenGuest) -> None:
    """Both have the same return address, as the dispatcher calls all handlers at one place."""
    gdb = guest(variant="today").gdb
    gdb.run("exo-syscall break ipc_send")
    gdb.run("set language c")
    gdb.run(f"tbreak *{gdb.address('sys_getpid'):#x}")
    while "System call" in gdb.run("continue"):
        pass
    place = int(gdb.json("exo-syscall list ipc_send")["syscalls"][0]["plan"]["address"], 16)
    gdb.run(f"tbreak *{gdb.integer('*(unsigned long long *)$rsp'):#x}")
    gdb.run(f"set $pc = {place:#x}")
    assert "System call" not in gdb.run("continue")
