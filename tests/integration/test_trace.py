"""`exo-syscall trace`, `summary` and `record` against the record that the kernel keeps of its own calls."""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from exogdb.launch.deadline import wait_until
from exogdb.launch.image import read_image
from exogdb.launch.logfilter import log_filter
from exogdb.trace.call import CallState
from exogdb.trace.record import Record, read_record
from tests.harness.gdb import GdbFailure
from tests.harness.kernel import Kernel, build_kernel
from tests.harness.linux import open_linux
from tests.harness.qmp import ask_qmp
from tests.harness.session import DEMO_RUNS, Guest, open_guest
from tests.harness.trace_truth import (
    count_proven_parents,
    count_results,
    find_differences,
    find_orphans,
    find_wrong_processes,
    join_records,
)
from tests.harness.truth import LONG, RETURNED, call_truth_address, read_call_truths, read_last_sequence
from tests.integration.stops import attach_running, stop_at

ENGINES = ["log", "stops"]
PART = 220  # calls
EXEC = 2
COUNT_STEPS = """
steps = 0
while int(gdb.newest_frame().read_register("cs")) & 3 == 0:
    gdb.execute("stepi", to_string=True)
    steps += 1
print(steps - 2)
"""  # without the last swapgs and sysretq, before which the other end is
RING = 256  # calls that the kernel remembers, but for the variant `truth-long`
SECONDS = 60.0


def filtered(kernel: Kernel) -> tuple[str, ...]:
    """The options that the launcher gives QEMU for tracing."""
    return log_filter(read_image(kernel.elf))


@pytest.fixture
def demo(kernel: Kernel) -> Iterator[Guest]:
    """A stopped guest whose programs call all the time, with the log filter set."""
    with open_guest(attach=False, smp=2, qemu=filtered(kernel)) as guest:
        attach_running(guest)
        yield guest


def record_some(guest: Guest, engine: str, path: Path, calls: int, places: int) -> Record:
    """Trace the next `calls` calls.

    The log shows a full sink only after the fact, so that a watchpoint ends it: on the place in the ring that
    the last of them will be written to, which no call before it touches.
    """
    if engine == "stops":
        guest.gdb.run(f"exo-syscall record {path} --engine stops --count {calls}", SECONDS)
    else:
        place = call_truth_address(guest.gdb, calls, places)
        guest.gdb.run(f"with language c -- watch *(unsigned long *){place:#x}")
        guest.gdb.run(f"exo-syscall record {path} --engine log", SECONDS)
        guest.gdb.run("delete $bpnum")
    return read_whole(path)


def read_whole(path: Path) -> Record:
    """The trace in `path`, which says that nothing is missing."""
    with path.open() as lines:
        record = read_record(lines)
    assert record.end is not None
    assert (record.end["lost"], record.end["problems"]) == (0, [])
    return record


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("engine", "smp"), [("log", 1), ("log", 4), ("stops", 2)])
def test_a_trace_of_the_selftest_is_what_the_kernel_recorded(tmp_path: Path, engine: str, smp: int) -> None:
    """Every call from the first to power-off, every argument, state and result.

    In three traces, so that calls span two of them. The kernel's ring holds all calls.
    """
    # One check uses all memory up, and QEMU clears it word by word while its log is on.
    options = ("-m", "24", *filtered(build_kernel("truth-long")))
    with open_guest("run=selftest", smp, "truth-long", stopped=True, qemu=options) as guest:
        stop_at(guest.gdb, "syscall_entry")
        records = [record_some(guest, engine, tmp_path / str(n), PART, LONG) for n in range(2)]
        guest.gdb.run("break exo_os::arch::power::leave")
        guest.gdb.run(f"exo-syscall record {tmp_path / 'rest'} --engine {engine}", 4 * SECONDS)
        records.append(read_whole(tmp_path / "rest"))
        truths = read_call_truths(guest.gdb, LONG)
        assert len(truths) == read_last_sequence(guest.gdb)
        assert "0 failed" in guest.qemu.serial()
    joined = join_records(records)
    differences = find_differences(joined, truths)
    assert not differences, "\n".join(differences)
    assert find_wrong_processes(joined, truths) == []
    assert engine == "log" or not find_orphans(records[0], truths)
    assert count_results(joined) > 2_500


@pytest.mark.parametrize("engine", ENGINES)
def test_the_demonstration_from_its_first_call_is_what_the_kernel_recorded(tmp_path: Path, engine: str) -> None:
    """Three children with the same registers execute three programs at the same time, on four CPUs."""
    with open_guest("run=demo", 4, "truth-long", stopped=True, qemu=filtered(build_kernel("truth-long"))) as guest:
        stop_at(guest.gdb, "syscall_entry")
        guest.gdb.run(f"exo-syscall record {tmp_path / 'trace'} --engine {engine} --for 1", SECONDS)
        record, truths = read_whole(tmp_path / "trace"), read_call_truths(guest.gdb, LONG)
    truths = truths[: max(call.sequence for call in record.calls)]
    executed = [call.state for call in record.calls if call.number == EXEC]
    assert executed.count(CallState.RETURNED) >= max(3, len(executed) - 1)  # one may be in progress
    assert CallState.NEVER_RETURNED not in executed
    assert find_wrong_processes(record, truths) == []
    # The log has no pids: where two processes fork at the same time, a parent is left out.
    assert any(call.parent is not None for call in record.calls)
    assert engine == "log" or find_orphans(record, truths) == set()
    assert engine == "log" or count_proven_parents(record) >= 3  # a child may end before its parent's fork does


@pytest.mark.parametrize("engine", ENGINES)
def test_a_kernel_that_changes_page_tables_in_its_stub(tmp_path: Path, engine: str) -> None:
    kernel = build_kernel("today")
    with open_guest("run=selftest", 1, "today", stopped=True, qemu=filtered(kernel)) as guest:
        stop_at(guest.gdb, "syscall_entry_asm")
        record = record_some(guest, engine, tmp_path / "trace", PART, RING)
        truths = read_call_truths(guest.gdb)
    record.calls = [
        call for call in record.calls if call.sequence <= len(truths)
    ]  # the last has just been entered
    differences = find_differences(record, truths, below_frame=0)
    assert not differences, "\n".join(differences)
    assert len(record.calls) == PART - 1
    assert count_results(record) == (0 if engine == "log" else sum(truth.state == RETURNED for truth in truths))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_breakpoint_of_the_users_ends_a_trace(demo: Guest, engine: str) -> None:
    demo.gdb.run(f"break *{demo.gdb.address('sys_ipc_recv'):#x}")
    text = demo.gdb.run(f"exo-syscall trace --engine {engine} --for 20")
    stop = re.search(r"^ended \((?:breakpoint|stopped at \S+ on CPU (\d))", text, re.MULTILINE)
    assert stop, text
    if stop[1]:
        demo.gdb.run(f"thread {int(stop[1]) + 1}")
    assert demo.gdb.integer("$rip") == demo.gdb.address("sys_ipc_recv")


def test_lines_are_those_of_strace(demo: Guest) -> None:
    text = demo.gdb.run("exo-syscall trace %ipc --count 40 --engine log")
    first, *lines = text.splitlines()
    assert first.startswith("tracing by QEMU's execution log")
    calls = [line for line in lines if " sender  ipc_send(channel=" in line]
    assert calls
    assert all(re.search(r"length=(\d+)\) (= \1|<unfinished \.\.\.>)$", line) for line in calls)
    assert "read(" not in text


def test_stops_show_what_a_call_is_given_and_what_it_fills(demo: Guest) -> None:
    text = demo.gdb.run("exo-syscall trace %ipc --count 40 --stack --engine stops")
    assert '"message ' in text
    assert "program_main" in text
    assert "(by frame pointer)" in text


@pytest.mark.parametrize("engine", ENGINES)
def test_fork_and_exec_are_followed(demo: Guest, engine: str) -> None:
    """The demo forks a child, which executes echo, which exits with status 3: one process all along."""
    text = demo.gdb.run(f"exo-syscall trace fork,exec,exit --count 9 --engine {engine}")
    arguments = re.findall(r"exec\(path=\S+(?: \S+)?, argv=\S+ (\S.*), argc=\d\)", text)
    assert ('["echo", "status=3"]' in arguments) == (engine == "stops"), text
    executed = set(re.findall(r" P(\d+) \w+  (?:exec\(.*\)|<\.\.\. exec resumed>) = 0", text))
    ended = set(re.findall(r" P(\d+) echo  exit\(\w+=3\) = \?", text))
    assert ended & executed, text
    assert "entered before" not in text


def test_the_log_shows_only_text_that_cannot_have_changed(demo: Guest) -> None:
    opened = demo.gdb.run("exo-syscall trace open,ipc_send --for 2 --engine log")
    assert 'open(path=0x13004000 "/tmp/worker", flags=O_' in opened
    assert '"message ' not in opened


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_left_behind(demo: Guest, engine: str) -> None:
    """No breakpoint in the guest, no log that grows, no FIFO; and GDB knows where the guest stands."""
    demo.gdb.run(f"exo-syscall trace --count 20 --engine {engine}")
    selected = demo.gdb.integer("$_thread") - 1
    dump = demo.gdb.reply("monitor info registers -a").err.split(f"CPU#{selected}")[1]
    assert demo.gdb.integer("$rip") == int(dump.split("RIP=")[1].split()[0], 16)
    # QEMU closes a log file some time after it has been told to use another one.
    wait_until(lambda: not [path for path in demo.open_files() if "exogdb-trace" in path], 5.0, "the log's end")
    before = count_calls(demo)
    stop_at(demo.gdb, "syscall_entry")
    stop_at(demo.gdb, "syscall_dispatch")
    assert count_calls(demo) >= before


def count_calls(guest: Guest) -> int:
    """The kernel's own counter."""
    return int.from_bytes(guest.gdb.memory(guest.gdb.address("SYSCALL_COUNT"), 8), "little")


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_ends_a_trace_and_leaves_gdb_usable(demo: Guest, engine: str) -> None:
    demo.gdb.start(f"exo-syscall trace --engine {engine}")
    demo.gdb.wait_output("ipc_send(")
    demo.gdb.interrupt()
    assert "ended (Ctrl-C)" in demo.gdb.finish().out
    check_usable(demo)


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_while_a_trace_is_set_up(demo: Guest, engine: str) -> None:
    demo.gdb.start(f"exo-syscall trace --engine {engine}")
    demo.gdb.wait_output("tracing by")
    demo.gdb.interrupt()
    reply = demo.gdb.finish()
    assert "Quit" in reply.err or "ended (Ctrl-C)" in reply.out
    check_usable(demo)


def test_somebody_else_who_stops_the_guest_ends_a_trace_by_stops(demo: Guest) -> None:
    demo.gdb.start("exo-syscall trace --engine stops")
    demo.gdb.wait_output("ipc_send(")

    def has_ended() -> bool:
        ask_qmp(demo.qemu.qmp_socket, {"execute": "stop"})  # of no effect where the engine has it stopped just now
        try:
            demo.gdb.wait_output("ended (", 0.2)
        except GdbFailure:
            return False
        return True

    wait_until(has_ended, 20.0, "the end of the trace")
    assert "ended (the guest was stopped by somebody else, signal 2)" in demo.gdb.finish().out
    check_usable(demo)


def check_usable(demo: Guest) -> None:
    """GDB takes commands, its breakpoints work, and the next trace does, too."""
    assert demo.gdb.run("info breakpoints").startswith("No breakpoints")
    stop_at(demo.gdb, "syscall_entry")
    assert demo.gdb.integer("$rip") == demo.gdb.address("syscall_entry")
    assert "ended (as asked for): 5 entries" in demo.gdb.run("exo-syscall trace --count 5 --engine stops")


@pytest.mark.parametrize("engine", ENGINES)
def test_qemu_dying_ends_a_trace_and_keeps_what_was_read(demo: Guest, engine: str, tmp_path: Path) -> None:
    path = tmp_path / "killed.trace"
    demo.gdb.start(f"exo-syscall trace --engine {engine}")
    demo.gdb.wait_output("ipc_send(")
    demo.qemu.kill()
    reply = demo.gdb.finish()
    assert "ended (QEMU ended)" in reply.out
    assert "Traceback" not in reply.out + reply.err
    assert demo.gdb.fails(f"exo-syscall record {path}").startswith("no guest is connected")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("command", ["record {}", "summary"])
def test_qemu_dying_ends_a_record_and_a_summary(kernel: Kernel, command: str, engine: str, tmp_path: Path) -> None:
    """What was seen until then is in the file and in the table."""
    path = tmp_path / "trace"
    with open_guest(stopped=True, qemu=filtered(kernel)) as guest:
        stop_at(guest.gdb, "syscall_entry")
        begin = f"exo-syscall {command.format(path)} --engine {engine}"
        guest.gdb.start(begin)
        wait_until(partial(has_begun, guest), 20.0, "some calls")
        guest.qemu.kill()
        said = guest.gdb.finish()
        assert "ended (QEMU ended)" in said.out
        assert "Traceback" not in said.out + said.err
        assert guest.gdb.fails(begin).startswith("no guest is connected")
    if "record" in command:
        record = read_record(path.read_text().splitlines())
        assert count_results(record) > 5
        assert record.end is not None
    else:
        assert re.search(r"^ *\d+ .* open$", said.out, re.MULTILINE), said.out


def has_begun(guest: Guest) -> bool:
    """Whether the demonstration's first program, which has made some calls, runs."""
    return DEMO_RUNS in guest.qemu.serial()


def test_without_the_filter_the_stops_are_taken_and_the_log_is_refused() -> None:
    with open_guest(attach=False) as guest:
        attach_running(guest)
        assert "tracing by stops" in guest.gdb.run("exo-syscall trace --count 1")
        assert "start QEMU with -accel tcg -dfilter 0x" in guest.gdb.fails("exo-syscall trace --engine log")


def test_the_guests_clock_counts_instructions(tmp_path: Path) -> None:
    """From the first instruction of the stub to its last swapgs; counted a second time by stepping."""
    with open_guest("run=spin", stopped=True, qemu=("-icount", "shift=0")) as guest:
        stop_at(guest.gdb, "syscall_entry")
        path = tmp_path / "trace"
        guest.gdb.run(f"exo-syscall record {path} getpid --count 3 --clock guest")
        calls = [call for call in read_whole(path).calls if call.state is CallState.RETURNED]
        assert len({call.latency_ns for call in calls}) == 1, calls
        stop_at(guest.gdb, "syscall_entry")
        steps = guest.gdb.run(f"python exec({COUNT_STEPS!r})")
        assert calls[0].latency_ns == int(steps.split()[-1])
        text = guest.gdb.run("exo-syscall trace getpid --time --clock guest --count 2")
        assert "times: instructions that all CPUs have executed" in text
        assert f"getpid() = 1 <{int(steps.split()[-1])}>" in text
        assert "QEMU's log holds no clock" in guest.gdb.fails("exo-syscall trace --clock guest --engine log")


def test_a_summary_counts_what_the_kernel_counts(demo: Guest) -> None:
    found: Any = demo.gdb.json("exo-syscall summary --for 1")
    counts = {each["name"]: each["count"] for each in found["syscalls"]}
    assert counts["ipc_send"] > 100
    assert sum(counts.values()) == found["calls"] == found["end"]["entries"]
    assert abs(found["end"]["dispatched"] - found["end"]["entries"]) <= 2
    demo.gdb.run("set width 80")
    text = demo.gdb.run("exo-syscall summary --count 200 --engine stops")
    assert text.isascii()
    assert "ipc_send" in text
    assert re.search(r"^ +\d+ +\d+\.\d% +0 +\d+ +(?:\S+ (?:us|ms) +){4}ipc_send$", text, re.MULTILINE), text
    assert max(map(len, text.splitlines())) <= 80


def test_bad_words_are_refused_before_the_guest_runs(demo: Guest, tmp_path: Path) -> None:
    before = demo.gdb.integer("$rip")
    for words, said in {
        "nosuch": "no system call is called 'nosuch'",
        "--count 0": "'0' is not a number of calls",
        "--for soon": "'soon' is not a time in seconds",
        f"--output {tmp_path}/missing/file": "missing/file cannot be written: No such file or directory",
        "--engine best": "invalid choice: 'best'",
    }.items():
        assert said in demo.gdb.fails(f"exo-syscall trace {words}")
    assert demo.gdb.integer("$rip") == before


def test_a_kernel_that_nobody_here_wrote(tmp_path: Path) -> None:
    """Linux returns results through pt_regs: with stops they are read from there.

    Its program makes 64 calls of getpid between two of getppid: the log has every one of them.
    """
    with open_linux() as (guest, _):
        text = guest.gdb.run("exo-syscall trace getpid,getppid --count 20 --engine stops")
        error = guest.gdb.fails("exo-syscall trace --engine log")
    results = re.findall(r" (getp?pid)\(arg1=0x.*\) = (\S+)$", text, re.MULTILINE)
    assert len(results) >= 18
    assert all(int(value) >= 0 for _, value in results)
    assert "guess" not in text
    filter_words = re.search(r"-dfilter (\S+), as", error)
    assert filter_words, error
    with open_linux(qemu=("-dfilter", filter_words[1])) as (guest, _):
        guest.gdb.run(f"exo-syscall record {tmp_path / 'trace'} --engine log --count 4000")
    runs = [run for calls in names_by_process(read_whole(tmp_path / "trace")) for run in between(calls, "getppid")]
    assert len(runs) >= 50
    assert all(run.count("getpid") == 64 for run in runs)


def names_by_process(record: Record) -> list[list[str]]:
    """The names of each process's calls, in the order in which they were entered."""
    found = defaultdict(list)
    for call, shown in sorted(zip(record.calls, record.shown, strict=True), key=lambda pair: pair[0].sequence):
        if call.number is not None:
            found[call.process].append(shown.name)
    return list(found.values())


def between(names: list[str], mark: str) -> list[list[str]]:
    """What stands between every two neighbouring marks."""
    places = [place for place, name in enumerate(names) if name == mark]
    return [names[first + 1 : second] for first, second in pairwise(places)]


LOOK_AT_THE_OTHER_CPU_LAST = """
from exogdb.target.trace.stub_run import open_stub_run
here = gdb.selected_thread()
(other,) = (each for each in gdb.selected_inferior().threads() if each.num != here.num)
for thread in (here, other):
    thread.switch()
    gdb.newest_frame().read_register("rsp")
here.switch()
with open_stub_run(1) as run:
    print(run.registers()["rsp"])
"""


def test_stops_begin_at_the_selected_cpu_whichever_gdb_looked_at_last() -> None:
    """GDB keeps what it has read, and the stub stays at the CPU that it was asked for last."""
    with open_guest(smp=2) as one:
        stop_at(one.gdb, "syscall_entry")
        assert int(one.gdb.run(f"python exec({LOOK_AT_THE_OTHER_CPU_LAST!r})")) == one.gdb.integer("$rsp")
