"""`EXO_TRUTH` against the CPU and the kernel's memory, as GDB's own commands show them."""

import struct

import pytest

from tests.harness.gdb import Gdb
from tests.harness.session import Guest
from tests.harness.truth import (
    IN_PROGRESS,
    RETURNED,
    CallTruth,
    read_call_truths,
    read_cpu_truths,
    read_last_sequence,
)
from tests.integration.conftest import OpenGuest

IPC_SEND = 101
STOPS = 200  # enough for the scheduler to have had its way
BLOCKS = "exo_os::arch::percpu::PERCPU"
SEQUENCE_OFFSET = 0x38  # in the per-CPU block
FRAME = struct.Struct("<8Q")
SECONDS = 2  # of guest time, one after the other
TICKS_PER_SECOND = 100
CALLS = (
    *("exit", "fork", "exec", "wait", "getpid", "ipc_create", "ipc_send", "ipc_recv", "ipc_close"),
    *("mmap", "munmap", "mprotect", "open", "close", "read", "write"),
)


def stop_at(guest: Guest, function: str) -> Gdb:
    guest.qemu.wait_serial("demo: pid")
    guest.gdb.run(f"target remote {guest.qemu.gdb_socket}")
    guest.gdb.run(f"break *{guest.gdb.address(function):#x}")
    guest.gdb.run("continue")
    return guest.gdb


def test_each_cpu_has_the_designs_values_and_tables_of_its_own(guest: OpenGuest) -> None:
    gdb = stop_at(guest(smp=4, plugin=False, attach=False), "sys_ipc_send")
    truths = read_cpu_truths(gdb)
    assert [truth.cpu_id for truth in truths] == [0, 1, 2, 3]
    for truth in truths:
        block = gdb.integer(f"&{BLOCKS}[{truth.cpu_id}]")
        assert (truth.star, truth.fmask, truth.cstar) == (0x0018_0008_0000_0000, 0x200, 0)
        assert truth.efer & 1, "SCE"
        assert truth.lstar == gdb.address("syscall_entry")
        assert (truth.gs_base, truth.kernel_gs_base, truth.fs_base) == (block, 0, 0)
        assert truth.gdt == gdb.integer(f"&{BLOCKS}[{truth.cpu_id}].gdt")
        assert truth.tss == gdb.integer(f"&{BLOCKS}[{truth.cpu_id}].tss")
        assert gdb.integer(f"{BLOCKS}[{truth.cpu_id}].self_address") == block
        assert gdb.integer(f"exo_os::truth::EXO_TRUTH.cpus[{truth.cpu_id}].lstar") == truth.lstar, "typed, too"
    assert len({truth.idt for truth in truths}) == 1


def current_call(gdb: Gdb) -> CallTruth:
    """The record of the call that the CPU of the selected thread is in."""
    (sequence,) = struct.unpack("<Q", gdb.memory(gdb.integer("$gs_base") + SEQUENCE_OFFSET, 8))
    (call,) = (call for call in read_call_truths(gdb) if call.sequence == sequence)
    return call


def test_the_call_in_progress_is_recorded_as_the_stub_saved_it(guest: OpenGuest) -> None:
    gdb = stop_at(guest(plugin=False, attach=False), "sys_ipc_send")
    call = current_call(gdb)
    assert (call.number, call.state) == (IPC_SEND, IN_PROGRESS)
    assert call.arguments[:3] == tuple(gdb.integer(register) for register in ("$rdi", "$rsi", "$rdx"))
    saved = FRAME.unpack(gdb.memory(call.frame, FRAME.size))
    assert saved == (call.r15, call.r14, call.r13, call.r12, call.rbx, call.rbp, call.user_rflags, call.user_rip)
    assert call.kernel_rsp == call.frame + FRAME.size
    assert gdb.memory(call.user_rip - 2, 2) == b"\x0f\x05", "SYSCALL is what the return address follows"
    assert "exo::calls::ipc_send" in gdb.run(f"info symbol {call.user_rip:#x}")
    assert gdb.integer("$gs_base") == gdb.integer(f"&{BLOCKS}[{call.cpu}]")


def test_a_call_that_returned_has_its_result(guest: OpenGuest) -> None:
    gdb = stop_at(guest(plugin=False, attach=False), "sys_ipc_send")
    before = current_call(gdb)
    gdb.run("continue")
    after = {call.sequence: call for call in read_call_truths(gdb)}[before.sequence]
    assert (after.state, after.result) == (RETURNED, before.arguments[2]), "send returns the message's length"


def test_the_ring_holds_the_last_calls_and_the_count_agrees(guest: OpenGuest) -> None:
    gdb = stop_at(guest(plugin=False, attach=False), "sys_getpid")
    while read_last_sequence(gdb) < 256:
        gdb.run("continue")
    calls = read_call_truths(gdb)
    assert len(calls) == 256
    assert [call.sequence for call in calls] == list(range(calls[-1].sequence - 255, calls[-1].sequence + 1))
    assert gdb.word("SYSCALL_COUNT") == calls[-1].sequence
    assert calls[-1].number == 4


def test_a_cpu_that_stood_still_does_not_overwrite_later_calls(guest: OpenGuest) -> None:
    gdb = guest("run=spin", smp=2, plugin=False, stopped=True).gdb
    entry = gdb.address("syscall_entry")
    gdb.run(f"hbreak *{entry:#x}")
    gdb.run("continue")
    while len({cpu.current_process for cpu in read_cpu_truths(gdb)} - {0}) < 2:  # until both CPUs spin
        gdb.run("continue")
    gdb.run("delete")
    slow = gdb.integer("$_thread")
    last = read_last_sequence(gdb)
    gdb.run("set scheduler-locking on")
    while read_last_sequence(gdb) == last:
        gdb.run("stepi")  # until it has a number, and has not written anything else
    gdb.run(f"thread {3 - slow}")
    gdb.run(f"hbreak *{entry:#x}")
    gdb.run("ignore $bpnum 300")
    gdb.run("continue", seconds=60)
    gdb.run(f"thread {slow}")
    gdb.run("continue")  # to its next call
    sequences = [call.sequence for call in read_call_truths(gdb)]
    assert last + 1 not in sequences
    assert sequences == list(range(sequences[-1] - 255, sequences[-1] + 1))


def test_processes_run_and_talk_on_every_cpu(guest: OpenGuest) -> None:
    one = guest("run=demo pace=none", smp=3, plugin=False, attach=False)
    gdb = stop_at(one, "sys_ipc_recv")
    gdb.run(f"break *{gdb.address('sys_ipc_send'):#x}")
    cpus: dict[int, set[int]] = {gdb.address("sys_ipc_recv"): set(), gdb.address("sys_ipc_send"): set()}
    for _ in range(STOPS):
        gdb.run("continue")
        cpus[gdb.integer("$rip")].add(gdb.integer("$_thread"))
        receivers, senders = cpus.values()
        all_work = all(cpu.last_sequence for cpu in read_cpu_truths(gdb))
        if all_work and receivers and senders and len(receivers | senders) > 1:
            return
    raise AssertionError(f"receivers and senders ran on CPUs {cpus}")


@pytest.mark.parametrize(("variant", "smp"), [("", 4), ("debug", 4), ("today", 1)])
def test_the_demo_keeps_every_number_happening_each_second(guest: OpenGuest, variant: str, smp: int) -> None:
    # With -icount guest time is the instructions executed: a busy host changes nothing.
    one = guest(variant=variant, smp=smp, plugin=False, attach=False, qemu=("-icount", "shift=0"))
    gdb = stop_at(one, "sys_getpid")
    ticks = gdb.integer("&exo_os::process::KERNEL.kernel.value.ticks")
    gdb.run("delete")
    for _ in range(SECONDS):
        for name in CALLS:
            gdb.run(f"tbreak *{gdb.address(f'sys_{name}'):#x}")
        start = int.from_bytes(gdb.memory(ticks, 8), "little")
        for _ in CALLS:
            gdb.run("continue", seconds=60)
        assert gdb.run("info breakpoints").startswith("No breakpoints")
        assert int.from_bytes(gdb.memory(ticks, 8), "little") - start <= TICKS_PER_SECOND
