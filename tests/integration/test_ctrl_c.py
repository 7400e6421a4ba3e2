"""Ctrl-C at any moment of a command that looks: one word, a usable GDB, and a guest that was not touched."""

import random
from collections.abc import Sequence
from pathlib import Path

from exogdb.launch.deadline import wait_until
from tests.harness.gdb import Gdb
from tests.harness.session import open_guest
from tests.harness.witness import differences, same_hardware, watched_guest
from tests.integration.stops import attach_running, stop_at

COMMANDS = (
    "exo-msr",
    "exo-msr --all-cpus",
    "exo-msr --via qmp pat apic_base",
    "exo-msr --via rdmsr",
    "exo-msr read pat --all-cpus",
    "exo-msr star",
    "exo-msr lstar",
    "exo-gs",
    "exo-gs --all-cpus",
    "exo-gdt",
    "exo-idt",
    "exo-tss",
    # Not print, whose search for a pretty-printer swallows a Ctrl-C: GDB's own, with any function.
    'printf "0x%lx\\n", $exo_gs(b"kernel")',
)
PRESSES, TOGETHER = 8, 3
ROUNDS = 3000  # more than GDB does before Ctrl-C comes
LONGEST_SECONDS = 0.1  # of GDB's own work: about as long as three commands take
WORK_SECONDS = 30.0


def state_of(gdb: Gdb) -> list[str]:
    """What the user chose, what GDB shows of the guest's memory, and how it is set."""
    commands = (
        "print $_thread",
        "frame",
        "x/4gx $sp",
        "show language",
        "show remotetimeout",
        "show max-value-size",
    )
    return [gdb.reply(command).out.partition("= ")[2] or gdb.reply(command).out for command in commands]


def seconds_worked(gdb: Gdb) -> float:
    """The CPU time of GDB's main thread."""
    return int(Path(f"/proc/{gdb.pid}/schedstat").read_text().split()[0]) / 1e9


def wait_work(gdb: Gdb, seconds: float) -> None:
    end = seconds_worked(gdb) + seconds
    wait_until(lambda: seconds_worked(gdb) >= end, WORK_SECONDS, f"GDB at work for {seconds:.3f} s")


def press_during(gdb: Gdb, commands: Sequence[str], seconds: float) -> None:
    # GDB's own loop: one in Python would answer a Ctrl-C between two rounds with that Python.
    loop = "\n".join(commands)
    gdb.start(f"set $n = 0\nwhile $n < {ROUNDS}\n{loop}\nset $n = $n + 1\nend")
    gdb.wait_output("0x")
    wait_work(gdb, seconds)
    gdb.interrupt()
    reply = gdb.finish()
    assert reply.err == "Quit\n", f"{commands} after {seconds:.3f} s: {reply.err}"


def test_ctrl_c_at_random_moments() -> None:
    chosen = random.Random(4)
    with watched_guest(2) as (guest, witness):
        attach_running(guest)
        gdb = guest.gdb
        stop_at(gdb, "syscall_dispatch")
        gdb.run("set language rust")
        gdb.reply("frame 1")  # the entry stub's, which the plugin's unwinder finds
        before, state = witness.look(device_state=False), state_of(gdb)
        for _ in range(PRESSES):
            commands, seconds = chosen.sample(COMMANDS, TOGETHER), chosen.uniform(0, LONGEST_SECONDS)
            press_during(gdb, commands, seconds)
            assert state_of(gdb) == state, f"{commands} after {seconds:.3f} s"
            changed = differences(same_hardware(before), same_hardware(witness.look(device_state=False)))
            assert changed == [], f"{commands} after {seconds:.3f} s"
        stop_at(gdb, "syscall_dispatch")


# Counts the frames that GDB looks for by itself, with none of exogdb's functions around it.
COUNTER = """
import sys
import gdb.unwinder
class Counter(gdb.unwinder.Unwinder):
    def __init__(self):
        super().__init__("counter")
        self.count = 0
    def __call__(self, pending_frame):
        frame = sys._getframe()
        while frame is not None and "/exogdb/" not in frame.f_code.co_filename:
            frame = frame.f_back
        self.count += frame is None
counter = Counter()
gdb.unwinder.register_unwinder(None, counter)
"""


def test_gdb_has_no_frame_to_look_for_behind_a_function() -> None:
    """A Ctrl-C that strikes there leaves it with half a frame: "failed to find previous frame" from then on."""
    with open_guest("run=demo", 2) as guest:
        gdb = guest.gdb
        gdb.run("tbreak syscall_dispatch")  # behind the prologue: in an inlined function, named after its caller
        gdb.reply("continue")
        assert gdb.run("python print(gdb.newest_frame().type() == gdb.INLINE_FRAME)") == "True\n"
        gdb.run("set language rust")
        gdb.run(f"python exec({COUNTER!r}, globals())")
        gdb.run('set $x = $exo_gs(b"kernel")')
        gdb.run("python counter.count = 0")
        gdb.run('set $x = $exo_gs(b"kernel")')
        assert gdb.run("python print(counter.count)") == "0\n"


WATCHED = """
import signal
held = []
def set_parameter(*words, _set=gdb.set_parameter):
    held.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    _set(*words)
gdb.set_parameter = set_parameter
"""


def test_a_setting_is_changed_where_no_ctrl_c_strikes() -> None:
    """Behind each change GDB looks for the selected frame: with half a frame it ended at the next (GDB 13)."""
    with open_guest("run=demo") as guest:
        gdb = guest.gdb
        gdb.run("set language rust")
        gdb.run(f"python exec({WATCHED!r}, globals())")
        gdb.run("exo-gs")
        assert gdb.run("python print(len(held) > 3, all(held))") == "True True\n"


def test_ctrl_c_in_what_runs_behind_a_question_to_qemu() -> None:
    """GDB runs its hook of `monitor` then; the moment is too short to be hit by chance."""
    with open_guest("run=demo") as guest:
        gdb = guest.gdb
        gdb.run("exo-msr star")
        gdb.run("python import os; from exogdb.target.qemu import monitor; was = monitor.is_asking")
        gdb.run("python monitor.is_asking = lambda: os.kill(os.getpid(), 2) or was()")
        assert gdb.fails("exo-msr lstar --via qmp") == "Quit"
        assert gdb.fails("monitor info version").endswith("\nQuit")
        gdb.run("python monitor.is_asking = was")
        assert "syscall_entry" in gdb.run("exo-msr lstar --via qmp")
