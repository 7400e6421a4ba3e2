"""`exo-gs` against the kernel's own record, along the whole system-call path."""

import re
from typing import Any

import pytest

from tests.harness.gdb import Gdb
from tests.harness.session import open_guest
from tests.harness.truth import CpuTruth, read_cpu_truths
from tests.integration.stops import attach_running, stop_at, stop_in_ring_3

ENTRY_WINDOW = "entry window (swapgs not yet executed)"
MOST_STEPS = 200


def selected(gdb: Gdb) -> Any:
    (row,) = gdb.json("exo-gs")["cpus"]
    return row


def check_owners(row: Any, truths: list[CpuTruth]) -> None:
    """The kernel wrote down its own base; the other one is the user's."""
    kernel = truths[row["cpu"]].gs_base
    assert int(row["kernel"], 16) == kernel
    both = {int(row["gs_base"], 16), int(row["kernel_gs_base"], 16)}
    assert int(row["user"], 16) in both - {kernel}
    assert row["active"] == ("kernel" if int(row["gs_base"], 16) == kernel else "user")


def test_every_state_in_order_from_syscall_to_ring_3() -> None:
    with open_guest(attach=False) as guest:
        attach_running(guest)
        gdb = guest.gdb
        stop_at(gdb, "syscall_entry")
        truths = read_cpu_truths(gdb)
        row = selected(gdb)
        assert row["state"] == ENTRY_WINDOW
        check_owners(row, truths)
        gdb.reply("stepi")
        row = selected(gdb)
        assert row["state"] == "kernel"
        check_owners(row, truths)
        assert int(row["percpu"]["self_address"], 16) == int(row["kernel"], 16)
        assert int(row["percpu"]["cpu_id"], 16) == row["cpu"]
        states = walk_out(gdb, truths)
        assert states == ["kernel", "exit window", "user"]


def test_one_swapgs_too_many() -> None:
    """The bases are exchanged behind the stub's `swapgs`, as a second one there would do."""
    with open_guest(attach=False) as guest:
        attach_running(guest)
        gdb = guest.gdb
        stop_at(gdb, "syscall_entry")
        gdb.reply("stepi")
        for state in ("double-swapped", "kernel"):
            active, waiting = gdb.integer("$gs_base"), gdb.integer("$k_gs_base")
            gdb.run(f"set $gs_base = {waiting}")
            gdb.run(f"set $k_gs_base = {active}")
            row = selected(gdb)
            assert row["state"] == state
            check_owners(row, read_cpu_truths(gdb))
        assert "one swapgs too many" not in gdb.run("exo-gs")


def walk_out(gdb: Gdb, truths: list[CpuTruth]) -> list[str]:
    """Step from the entry stub's call of the dispatcher to ring 3; the states met on the way."""
    states = ["kernel"]
    for _ in range(MOST_STEPS):
        gdb.reply("nexti")
        row = selected(gdb)
        check_owners(row, truths)
        if row["state"] != states[-1]:
            states.append(row["state"])
        if row["cpl"] == 3:
            return states
    pytest.fail(f"no way to ring 3 in {MOST_STEPS} steps: {states}")


def test_every_cpu() -> None:
    with open_guest(smp=4, attach=False) as guest:
        attach_running(guest)
        gdb = guest.gdb
        stop_at(gdb, "syscall_entry")
        rows = gdb.json("exo-gs --all-cpus")["cpus"]
        assert [row["cpu"] for row in rows] == [0, 1, 2, 3]
        truths = read_cpu_truths(gdb)
        for row in rows:
            check_owners(row, truths)
            assert row["state"] in ("kernel", "user", ENTRY_WINDOW)
        text = gdb.run("exo-gs --all-cpus")
        assert text.count("per-CPU block at") == 4
        assert "the kernel's" in text
        check_stack_top(gdb, [int(row["kernel"], 16) for row in rows], truths)


def check_stack_top(gdb: Gdb, blocks: list[int], truths: list[CpuTruth]) -> None:
    """The top of a stack at the end of an object is counted from that object, not called after the next one."""
    size = 8 * (blocks[1] - blocks[0])
    top = (blocks[0] + size).to_bytes(8, "little")
    cpu = truths[int(gdb.run("print $_thread").split()[-1]) - 1]
    for address in (cpu.gs_base, cpu.tss + 4):  # kernel_rsp, TSS.RSP0
        gdb.run(f"python gdb.selected_inferior().write_memory({address}, {top!r})")
    stated, rsp0 = (
        next(line for line in gdb.run(command).splitlines() if name in line)
        for command, name in (("exo-gs", "kernel_rsp"), ("exo-tss", "RSP0"))
    )
    assert re.search(rf"\w+, or PERCPU\+{size}$", stated)
    assert rsp0.split()[-1] == f"PERCPU+{size}"


def test_a_handler_that_runs_on_the_users_base() -> None:
    with open_guest(attach=False) as guest:
        attach_running(guest)
        gdb = guest.gdb
        stop_at(gdb, "syscall_dispatch")
        kernel, user = gdb.integer("$gs_base"), gdb.integer("$k_gs_base")
        gdb.run(f"set $gs_base = {user:#x}")
        gdb.run(f"set $k_gs_base = {kernel:#x}")
        row = selected(gdb)
        assert row["state"] == "missing"
        assert row["active"] == "user"
        assert int(row["kernel"], 16) == kernel
        assert "without swapgs" in row["why"]


def test_without_debug_info_the_entry_stub_tells_the_offsets() -> None:
    with open_guest(attach=False) as guest:
        attach_running(guest)
        gdb = guest.gdb
        stop_at(gdb, "syscall_dispatch")
        named = selected(gdb)["percpu"]
        gdb.reply("symbol-file")
        gdb.reply("symbol-file")
        row = selected(gdb)
        assert row["percpu_known_by"] == "the offsets that the entry stub uses"
        assert row["percpu"]["gs:0x0"] == named["kernel_rsp"]
        assert row["percpu"]["gs:0x8"] == named["user_rsp"]


def test_convenience_functions() -> None:
    with open_guest(attach=False) as guest:
        attach_running(guest)
        gdb = guest.gdb
        stop_at(gdb, "syscall_entry")
        (truth,) = read_cpu_truths(gdb)
        assert gdb.integer('$exo_msr("lstar")') == truth.lstar
        assert gdb.integer('$exo_gs("kernel")') == truth.gs_base
        gdb.run("set language rust")
        assert gdb.integer('$exo_msr(b"lstar")') == truth.lstar
        assert gdb.integer("$exo_msr(0xc0000081)") == truth.star
        assert gdb.integer('$exo_gs(b"kernel")') == truth.gs_base
        assert gdb.integer('$exo_gs(b"user")') == gdb.integer("$gs_base")
        assert gdb.integer("$exo_cpl()") == 0
        gdb.run("set language c")
        assert gdb.integer('$exo_msr("lstar")') == truth.lstar
        assert gdb.integer('$exo_gs("kernel")') == truth.gs_base
        assert 'say "kernel" or "user"' in gdb.fails('print $exo_gs("mine")')
        assert "no MSR is called 'nosuch'" in gdb.fails('print $exo_msr("nosuch")')


def test_functions_in_a_condition() -> None:
    with open_guest(attach=False) as guest:
        attach_running(guest)
        gdb = guest.gdb
        gdb.run("set language rust")  # whatever the CPU was doing when GDB attached
        (truth,) = read_cpu_truths(gdb)
        gdb.run('break *$exo_msr(b"lstar") if $exo_cpl() == 3')  # never
        gdb.run(f'break syscall_dispatch if $exo_msr(b"lstar") == {truth.lstar} && $exo_gs(b"kernel") == $gs_base')
        assert "Breakpoint 2, " in gdb.run("continue")


def test_a_condition_executes_no_rdmsr() -> None:
    """It stops, and says what it does not know. At the prompt RDMSR takes over."""
    with open_guest() as guest:
        gdb = guest.gdb
        gdb.run("set exo qmp-socket /nonexistent/qmp.sock")
        dispatcher = gdb.address("syscall_dispatch")
        gdb.run(f"break *{dispatcher} if $exo_msr(0xc0000082) == 0")
        assert "IA32_LSTAR of CPU 0 is unavailable (" in gdb.fails("continue")
        assert gdb.integer("$rip") == dispatcher
        assert gdb.integer("$exo_msr(0xc0000082)") == read_cpu_truths(gdb)[0].lstar


def test_a_kernel_whose_stub_forgets_swapgs() -> None:
    """The dispatcher of this variant runs on the user's base."""
    with open_guest(variant="no-swapgs-entry", stopped=True) as guest:
        gdb = guest.gdb
        stop_at(gdb, "syscall_entry")
        row = selected(gdb)
        assert row["state"] == ENTRY_WINDOW
        stop_at(gdb, "syscall_dispatch")
        row = selected(gdb)
        assert (row["active"], row["state"]) == ("user", "missing")
        assert "the entry code calls the kernel without swapgs" in row["why"]
        assert int(row["kernel"], 16) == read_cpu_truths(gdb)[row["cpu"]].gs_base


STATES_OF_AN_INTERRUPT = ["user", ENTRY_WINDOW, "kernel", "exit window", "user"]
TIMER_STUB, NMI_STUB, STUB_SIZE = 32, 2, 16


def step_while_in_kernel(gdb: Gdb, states: list[str], truths: list[CpuTruth]) -> None:
    """Step to ring 3, over calls; `states` gets every state that is not the one before."""
    for _ in range(MOST_STEPS):
        row = selected(gdb)
        check_owners(row, truths)
        if row["state"] != states[-1]:
            states.append(row["state"])
        if row["cpl"] == 3:
            return
        gdb.reply("nexti")
    pytest.fail(f"no way to ring 3 in {MOST_STEPS} steps: {states}")


def test_every_state_of_an_interrupt_from_ring_3_and_back() -> None:
    with open_guest("run=spin", attach=False) as guest:
        attach_running(guest, after="spin")
        gdb = guest.gdb
        stop_in_ring_3(gdb)
        truths, states = read_cpu_truths(gdb), [selected(gdb)["state"]]
        gdb.run("set language c")
        stub = gdb.address("trap_stubs") + TIMER_STUB * STUB_SIZE
        gdb.run(f"tbreak *{stub:#x} if *(unsigned long *)($rsp + 8) & 3")
        gdb.reply("continue")
        step_while_in_kernel(gdb, states, truths)
        assert states == STATES_OF_AN_INTERRUPT


def test_an_nmi_in_the_entry_window_starts_in_one() -> None:
    with open_guest(attach=False, quick=False) as guest:
        attach_running(guest)
        gdb = guest.gdb
        stop_at(gdb, "syscall_entry")
        gdb.run("monitor nmi")
        gdb.run(f"tbreak *{gdb.address('trap_stubs') + NMI_STUB * STUB_SIZE:#x}")
        gdb.reply("continue")
        row = selected(gdb)
        assert (row["state"], row["active"]) == (ENTRY_WINDOW, "user")
        assert "in front of its swapgs" in row["why"]


def test_the_entry_of_32_bit_calls_runs_on_the_users_base() -> None:
    """`today` has one that goes back at once. What SYSCALL in compatibility mode does is done by hand."""
    with open_guest("run=demo", variant="today") as guest:
        gdb = guest.gdb
        while gdb.integer("$cs") & 3 == 0:  # an exec, say, does not come back to where it was made
            gdb.run("exo-syscall next getpid --any-cpu")
            gdb.reply("exo-syscall finish")
        cstar = gdb.json("exo-msr cstar")["cpus"][0]["msrs"]["IA32_CSTAR"]["value"]
        for change in ("$rcx = $rip", "$cs = 0x08", "$ss = 0x10", f"$pc = {cstar}"):
            gdb.run(f"set {change}")
        (row,) = gdb.json("exo-gs")["cpus"]
        assert (row["cpl"], row["active"], row["state"]) == (
            0,
            "user",
            "entry window (swapgs not yet executed)",
        ), row["why"]
