"""RDMSR in the guest where it is hard: halted CPUs, unmapped code, exceptions, Ctrl-C."""

import pytest

from exogdb.launch.deadline import wait_until
from tests.harness.gdb import Gdb
from tests.harness.session import open_guest
from tests.harness.truth import read_cpu_truths
from tests.harness.witness import differences, same_hardware, watched_guest
from tests.integration.stops import attach_running, stop_at, stop_in_ring_3

UNMAPPED = 0xFFFFA00000001000


def by_rdmsr(gdb: Gdb, name: str = "IA32_STAR") -> dict[str, str]:
    (cpu,) = gdb.json("exo-msr --via rdmsr")["cpus"]
    entry: dict[str, str] = cpu["msrs"][name]
    return entry


def forget_symbols(gdb: Gdb, *functions: str) -> None:
    """Without an image there is no RDMSR to be found in it; `functions` of the search find nothing either."""
    gdb.reply("symbol-file")
    gdb.run("python from exogdb.target.msr import rdmsr")
    for name in functions:
        gdb.run(f"python rdmsr.{name} = lambda *_: ()")


def test_halted_with_interrupts_off_is_refused_and_qmp_still_answers() -> None:
    # The fault waits for a tick in ring 3, where `spin` always is.
    with open_guest("run=spin", variant="star-off-by-one", attach=False) as guest:
        attach_running(guest, after="stack trace:")
        assert "HLT=1" in guest.gdb.reply("monitor info registers").err
        assert not guest.gdb.integer("$eflags") & 0x200
        assert "halted with interrupts off" in by_rdmsr(guest.gdb)["unavailable"]
        (cpu,) = guest.gdb.json("exo-msr")["cpus"]
        assert int(cpu["msrs"]["IA32_STAR"]["value"], 16) == read_cpu_truths(guest.gdb)[0].star


def test_halted_with_nothing_to_wake_it_takes_one_timeout_and_puts_everything_back() -> None:
    with watched_guest(1) as (guest, witness):
        attach_running(guest)
        gdb = guest.gdb
        stop_at(gdb, "syscall_dispatch")
        gdb.run("set language c")
        gdb.run("set {unsigned int}$rip = 0xf490f4fb")  # sti; hlt
        gdb.run("set $cr8 = 15")  # no interrupt of the local APIC comes through
        gdb.resume()
        wait_until(lambda: "HLT=1" in witness.look(device_state=False).registers, 10, "the CPU to halt")
        gdb.interrupt()
        gdb.finish()
        before = witness.look(device_state=False)
        assert "no interrupt woke it in time" in by_rdmsr(gdb)["unavailable"]
        after = witness.look(device_state=False)
        assert (before.ram, before.registers) == (after.ram, after.registers)


def test_in_the_shadow_of_sti_is_refused() -> None:
    with open_guest(attach=False) as guest:
        attach_running(guest)
        gdb = guest.gdb
        stop_at(gdb, "syscall_dispatch")
        # The idle loop's `sti; hlt` is hard to stop in; the same STI is put under RIP instead.
        gdb.run("set language c")
        gdb.run("set {unsigned short}$rip = 0x90fb")
        gdb.reply("stepi")
        assert "II=1" in gdb.reply("monitor info registers").err
        assert "right behind STI or MOV SS" in by_rdmsr(gdb)["unavailable"]
        gdb.reply("stepi")
        assert int(by_rdmsr(gdb)["value"], 16) == read_cpu_truths(gdb)[0].star


def test_an_unmapped_rip_is_no_obstacle_while_the_kernel_has_an_rdmsr() -> None:
    with watched_guest(1) as (guest, witness):
        attach_running(guest)
        gdb = guest.gdb
        stop_at(gdb, "syscall_dispatch")
        star = read_cpu_truths(gdb)[0].star
        gdb.run(f"set $rip = {UNMAPPED:#x}")
        before = witness.look(device_state=False)
        assert int(by_rdmsr(gdb)["value"], 16) == star
        forget_symbols(gdb)  # then there is one in a page of the exception handlers
        assert int(by_rdmsr(gdb)["value"], 16) == star
        forget_symbols(gdb, "_find_in_pages")  # then the first bytes of a handler are replaced
        assert int(by_rdmsr(gdb)["value"], 16) == star
        forget_symbols(gdb, "_possible_gates")
        assert f"RIP {UNMAPPED:#x} is not mapped" in by_rdmsr(gdb)["unavailable"]
        assert differences(before, witness.look(device_state=False)) == []


def test_replaced_code_is_put_back_also_under_a_breakpoint() -> None:
    with watched_guest(1) as (guest, witness):
        attach_running(guest)
        gdb = guest.gdb
        stop_at(gdb, "syscall_dispatch")
        star = read_cpu_truths(gdb)[0].star
        forget_symbols(gdb, "_find_in_pages")
        gdb.run("break *$rip")
        gdb.run("break *$rip+1")
        before = witness.look(device_state=False)
        assert int(by_rdmsr(gdb)["value"], 16) == star
        assert differences(before, witness.look(device_state=False)) == []
        gdb.run("delete")
        gdb.run("stepi")


EXECUTE_NOTHING = """python
from exogdb.target.msr import rdmsr
from exogdb.target.cpus import selected_cpu
place = rdmsr._find_place(selected_cpu(), rdmsr.RDMSR)
with rdmsr._transaction(selected_cpu(), place, rdmsr.RDMSR) as step:
    step.execute(0xFFFFA00000001000, 2, dict(place.registers))
end"""


def check_only_page_table_flags_set(before: bytes, after: bytes) -> None:
    """An exception sets the accessed and dirty bits of the stack it is pushed to, whoever caused it."""
    pages = [at for at in range(0, len(before), 4096) if before[at : at + 4096] != after[at : at + 4096]]
    changed = [at for page in pages for at in range(page, page + 4096) if before[at] != after[at]]
    assert len(changed) <= 8
    for at in changed:
        assert at % 8 == 0
        assert after[at] & ~before[at] & ~0x60 == before[at] & ~after[at] == 0


@pytest.mark.parametrize("ring", [0, 3])
def test_an_exception_is_noticed_and_undone(ring: int) -> None:
    """Executing where nothing is mapped raises #PF: a frame is pushed, CR2 changes, a handler would run."""
    with watched_guest(1) as (guest, witness):
        attach_running(guest)
        gdb = guest.gdb
        if ring == 3:
            stop_in_ring_3(gdb)
        else:
            stop_at(gdb, "syscall_entry")
        before, ram = witness.look(device_state=False), witness.ram.read_bytes()
        error = gdb.fails(EXECUTE_NOTHING)
        assert "raised an exception: the CPU went to" in error
        after = witness.look(device_state=False)
        assert differences(same_hardware(before), same_hardware(after)) in ([], ["RAM"])
        check_only_page_table_flags_set(ram, witness.ram.read_bytes())
        stop_at(gdb, "syscall_dispatch")


KILL_IN_THE_MIDDLE = """python
import os, signal
from exogdb.target.msr import guest_step
def step(cpu, real=guest_step._step):
    os.kill(os.getpid(), signal.SIGTERM)
    real(cpu)
guest_step._step = step
end"""


def test_a_gdb_that_is_killed_in_the_middle_puts_the_code_back_first() -> None:
    """QEMU lets the guest run on when GDB goes: with two bytes of its code replaced, it would not come far."""
    with watched_guest(1) as (guest, witness):
        attach_running(guest)
        gdb = guest.gdb
        stop_at(gdb, "syscall_dispatch")
        forget_symbols(gdb, "_find_in_pages")
        dispatcher = gdb.integer("$rip") & 0xFFFFFFF  # the kernel is linked at its physical address + -2 GiB
        code = witness.ram.read_bytes()[dispatcher : dispatcher + 16]
        gdb.run(KILL_IN_THE_MIDDLE)
        gdb.start("exo-msr read star")
        gdb.wait_exit()
        assert witness.ram.read_bytes()[dispatcher : dispatcher + 16] == code
        assert "kernel stopped" not in guest.qemu.serial()
