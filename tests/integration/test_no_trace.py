"""Proof that looking leaves no trace: all guest RAM and every register of every CPU, before and after.

RAM is a file that QEMU shares with the test, registers are what QEMU's own monitor prints for all CPUs, and
without RDMSR even the whole device state must be the same, byte for byte. None of this goes through the plugin.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from tests.harness.commands import ask_options, for_each_command
from tests.harness.gdb import Gdb
from tests.harness.kernel import ROOT
from tests.harness.witness import Witness, differences, same_hardware, watched_guest
from tests.integration.stops import attach_running, step_once, stop_at, stop_in_ring_3

# How every command that only looks is tried, with every option that it has. FILE is a path of the test's.
LOOKS: dict[str, tuple[str, ...]] = {
    "exo-gdt": ("",),
    "exo-gs": ("", "--all-cpus"),
    "exo-idt": ("", "#PF 0x80"),
    "exo-msr": (
        "",
        "--all-cpus",
        "pat apic_base sysenter_cs 0x3a",
        "--all-cpus --via qmp",
        "--via gdb",
        "--via quiet",
    ),
    "exo-msr lstar": ("", "--count 40"),
    "exo-msr star": ("",),
    "exo-syscall abi": ("", "--save FILE"),
    "exo-syscall check": (
        "--all",
        "--strict --rule EXO001",
        "--list",
        "--rule EXO002 --fail-on never",
        "--ignore EXO002",
    ),
    "exo-syscall frame": ("", "--cpu 0", "--stack $rsp", "--process 2"),
    "exo-syscall list": ("", "ipc_send 300-310"),
    "exo-tss": ("",),
}
# Other ways to look: functions, completion, GDB's own commands, and a breakpoint that never takes effect.
ALSO_LOOKS = (
    "exo-syscall break 101 --explain",  # GDB inserts it when the guest goes on; it is deleted before
    "delete",
    "backtrace",
    "print/x $exo_cpl()",
    'with language c -- print/x $exo_msr("lstar")',
    'with language c -- print/x $exo_gs("kernel")',
    "complete exo-msr ",
    "complete exo-syscall break ipc",
    "complete exo-syscall frame --process ",
    "show exo qmp-socket",
)
# Why the others are not tried here.
TOUCHES = {
    "exo-msr read": "executes RDMSR in the guest; see below",
    "exo-msr write": "changes an MSR",
    "exo-syscall break": "sets a breakpoint; see below",
    "exo-syscall finish": "resumes the guest",
    "exo-syscall frame set": "changes the saved frame",
    "exo-syscall next": "resumes the guest",
    "exo-syscall record": "resumes the guest",
    "exo-syscall step": "resumes the guest",
    "exo-syscall summary": "resumes the guest",
    "exo-syscall trace": "resumes the guest",
}
# Without a QMP socket these execute RDMSR, and say so, or do without.
BY_RDMSR = (
    "exo-msr",
    "exo-msr --all-cpus",
    "exo-msr --via rdmsr --all-cpus",
    "exo-msr read pat 0x174",
    "exo-msr star",
    "exo-msr lstar",
    'with language c -- print/x $exo_msr("lstar")',
    "exo-gs --all-cpus",
    "exo-gdt",
    "exo-syscall frame",
    "exo-syscall abi",
)
MOST_STOPS = 60


def at_cpl_0(gdb: Gdb) -> None:
    stop_at(gdb, "syscall_dispatch")


def before_swapgs(gdb: Gdb) -> None:
    stop_at(gdb, "syscall_entry")


def after_swapgs(gdb: Gdb) -> None:
    stop_at(gdb, "syscall_entry")
    step_once(gdb)


def at_cpl_3(gdb: Gdb) -> None:
    stop_in_ring_3(gdb)


def halted(gdb: Gdb) -> None:
    """Stop when some CPU waits in HLT with interrupts on, and select it."""
    for _ in range(MOST_STOPS):
        text = gdb.reply("monitor info registers -a").err
        for cpu, body in re.findall(r"CPU#(\d+)(.*?)(?=CPU#|\Z)", text, re.DOTALL):
            if "HLT=1" in body:
                gdb.reply(f"thread {int(cpu) + 1}")
                return
        if gdb.integer("$_inferior_thread_count") > 1:
            stop_at(gdb, "sys_ipc_send")
        else:  # no breakpoint finds the only CPU halted
            gdb.resume()
            gdb.interrupt()
            gdb.finish()
    pytest.fail("no CPU was halted at any stop")


PLACES = {place.__name__: place for place in (at_cpl_0, before_swapgs, after_swapgs, at_cpl_3, halted)}
# An only CPU stands in HLT itself, and no other can run meanwhile; the places in between are those of any CPU.
WHERE = [(1, ["at_cpl_3", "halted"]), (2, [*PLACES])]


def looking_lines(file: Path) -> list[str]:
    """Every line that is typed."""
    lines = [f"{name} {options}".strip() for name, each in LOOKS.items() for options in each]
    return [line.replace("FILE", str(file)) for line in (*lines, *ALSO_LOOKS)]


def find_culprits(gdb: Gdb, witness: Witness, lines: Sequence[str]) -> list[str]:
    """The lines after which something is not as it was, each with what that is."""
    culprits, before = [], witness.look(device_state=True)
    for line in lines:
        gdb.reply(line)
        after = witness.look(device_state=True)
        culprits += [f"{line}: {what}" for what in differences(before, after)]
        before = after
    return culprits


def test_every_command_is_known_to_look_or_to_touch() -> None:
    """A new command, or a new option of one that looks, must be put into the tables above."""
    commands = {one.name for one in for_each_command() if not one.is_pure_prefix}
    unknown = commands ^ (LOOKS.keys() | TOUCHES.keys())
    assert not unknown, f"{unknown}: put it into LOOKS, or into TOUCHES with the reason"
    assert not LOOKS.keys() & TOUCHES.keys()
    with Gdb(["-ex", f"source {ROOT / 'gdbinit.py'}"]) as gdb:
        every = ask_options(gdb)
    for name, options in every.items():
        tried = " ".join(LOOKS.get(name, ())).split()
        missing = set(options) - {"--json"} - set(tried)
        assert name not in LOOKS or not missing, f"{name}: {missing} is not tried: put it into LOOKS"


@pytest.mark.parametrize(("smp", "places"), WHERE)
def test_looking_changes_nothing_at_all(smp: int, places: Collection[str], tmp_path: Path) -> None:
    with watched_guest(smp) as (guest, witness):
        attach_running(guest)
        lines = looking_lines(tmp_path / "profile.toml")
        for place in places:
            PLACES[place](guest.gdb)
            before = witness.look(device_state=True)
            replies = [guest.gdb.reply(line) for line in lines]
            after = witness.look(device_state=True)
            if differences(before, after):
                pytest.fail(f"{place}: {differences(before, after)}; {find_culprits(guest.gdb, witness, lines)}")
            assert not any("rdmsr" in reply.out for reply in replies), place
            failed = [line for line, reply in zip(lines, replies, strict=True) if reply.failed]
            # Whether process 2 is in a call just now is a matter of time.
            assert place != "at_cpl_0" or set(failed) <= {"exo-syscall frame --process 2"}


@pytest.mark.parametrize(("smp", "places"), WHERE)
def test_rdmsr_in_the_guest_puts_everything_back(smp: int, places: Collection[str]) -> None:
    with watched_guest(smp) as (guest, witness):
        attach_running(guest)
        guest.gdb.run("set exo qmp-socket /nonexistent/qmp.sock")
        for place in places:
            PLACES[place](guest.gdb)
            before = witness.look(device_state=False)
            for line in BY_RDMSR:
                reply = guest.gdb.reply(line)
                after = witness.look(device_state=False)
                assert differences(same_hardware(before), same_hardware(after)) == [], f"{line} at {place}"
                assert not line.startswith("exo-msr") or "rdmsr" in reply.out, f"{line} at {place}: {reply}"
