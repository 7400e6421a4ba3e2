"""Each flawed kernel has its flaw, shown by what it recorded, what its code is, or what it died of.

Nothing here uses the plugin: these are the kernels that its checks are tested on.
"""

import re
import subprocess
from pathlib import Path

import pytest

from tests.harness.boot import boot
from tests.harness.gdb import Gdb
from tests.harness.kernel import build_kernel
from tests.harness.session import Guest
from tests.harness.truth import CpuTruth, read_cpu_truths
from tests.integration.conftest import OpenGuest
from tests.integration.stops import step_once

IF, TF_DF_AC = 0x200, 0x4_0500
SWAPGS = b"\x0f\x01\xf8"


def truths(guest: Guest) -> list[CpuTruth]:
    """What each CPU recorded, once all of them are set up. The kernel may already have died of its flaw."""
    guest.qemu.wait_serial("exo-os:")
    guest.gdb.run(f"target remote {guest.qemu.gdb_socket}")
    return read_cpu_truths(guest.gdb)


def truths_at_the_first_trap(guest: Guest) -> list[CpuTruth]:
    """As `truths`, for kernels that do not live long; every CPU is set up before any takes a trap."""
    guest.gdb.run(f"hbreak *{guest.gdb.address('trap'):#x}")
    guest.gdb.run("continue")
    return read_cpu_truths(guest.gdb)


def test_fmask_without_if(guest: OpenGuest) -> None:
    (cpu,) = truths(guest(variant="fmask-without-if", plugin=False, attach=False))
    assert not cpu.fmask & IF
    assert cpu.fmask & TF_DF_AC == TF_DF_AC


def test_fmask_leaves_df_tf_ac(guest: OpenGuest) -> None:
    (cpu,) = truths(guest(variant="fmask-leaves-df-tf-ac", plugin=False, attach=False))
    assert cpu.fmask & IF
    assert not cpu.fmask & TF_DF_AC


def test_no_sce(guest: OpenGuest) -> None:
    (cpu,) = truths_at_the_first_trap(guest(variant="no-sce", plugin=False, stopped=True))
    assert not cpu.efer & 1
    with boot("run=demo", variant="no-sce") as qemu:
        assert qemu.wait_exit() == 1
        assert "process 1 (demo): killed by #UD" in qemu.serial()


def test_lstar_noncanonical(guest: OpenGuest) -> None:
    one = guest(variant="lstar-noncanonical", plugin=False, attach=False)
    one.qemu.wait_serial("kernel stopped")
    (cpu,) = truths(one)
    assert cpu.lstar >> 47 not in (0, 0x1_FFFF)
    assert "kernel fault: #GP" in one.qemu.serial()


def test_lstar_unmapped(guest: OpenGuest) -> None:
    one = guest(variant="lstar-unmapped", plugin=False, attach=False)
    one.qemu.wait_serial("kernel stopped")
    (cpu,) = truths(one)
    assert f"kernel fault: #PF on CPU 0, error 0x10, CR2 {cpu.lstar:#x}" in one.qemu.serial()


def test_lstar_user_page(guest: OpenGuest) -> None:
    one = guest(variant="lstar-user-page", plugin=False, attach=False)
    one.qemu.wait_serial("kernel stopped")
    (cpu,) = truths(one)
    assert ".text of" in one.gdb.run(f"info symbol {cpu.lstar:#x}")
    assert cpu.lstar < 1 << 47


def test_star_off_by_one(guest: OpenGuest) -> None:
    # The timer has to find a program in ring 3, with CS 0x33; the demo is nearly always in the kernel.
    one = guest(append="run=spin", variant="star-off-by-one", plugin=False, attach=False)
    one.qemu.wait_serial("kernel stopped")
    (cpu,) = truths(one)
    assert cpu.star >> 48 == 0x20
    assert "kernel fault: #GP on CPU 0, error 0x30" in one.qemu.serial(), "CS 0x33 is the TSS"


def stub(gdb: Gdb) -> bytes:
    """The entry stub's code."""
    code = gdb.memory(gdb.address("syscall_entry"), 128)
    return code[: code.index(b"\x48\x0f\x07") + 3]


@pytest.mark.parametrize(("variant", "swaps"), [("no-swapgs-entry", 1), ("no-swapgs-exit", 1), ("", 2)])
def test_missing_swapgs(guest: OpenGuest, variant: str, swaps: int) -> None:
    one = guest(variant=variant, plugin=False, attach=False)
    one.qemu.wait_serial("kernel stopped" if variant else "demo: pid")
    truths(one)
    code = stub(one.gdb)
    assert code.count(SWAPGS) == swaps
    assert code.startswith(SWAPGS) == (variant != "no-swapgs-entry")
    assert ("kernel fault" in one.qemu.serial()) == bool(variant)


@pytest.mark.parametrize(("variant", "remainder"), [("misaligned-call", 0), ("", 8)])
def test_misaligned_call(guest: OpenGuest, variant: str, remainder: int) -> None:
    gdb = guest(variant=variant, plugin=False, stopped=True).gdb
    gdb.run("hbreak syscall_entry")
    gdb.run("continue")
    gdb.run(f"hbreak *{gdb.address('syscall_dispatch'):#x}")
    gdb.run("continue")
    assert gdb.integer("$rsp") % 16 == remainder


def test_a_kernel_fault_prints_registers_and_a_stack_trace_and_stops() -> None:
    with boot("run=demo", smp=2, variant="misaligned-call") as qemu:
        qemu.wait_serial("kernel stopped")
        serial = qemu.serial()
    assert re.search(r"^rip ffffffff8\w+ cs  0{13}008 ", serial, re.MULTILINE)
    assert re.search(r"^stack trace:\s+0xffffffff8\w+\s+0xffffffff8", serial, re.MULTILINE)


def test_an_nmi_on_every_cpu_is_told_once(guest: OpenGuest) -> None:
    one = guest("run=spin", smp=4, plugin=False, attach=False, quick=False)
    one.qemu.wait_serial("spin:")
    one.gdb.run(f"target remote {one.qemu.gdb_socket}")
    one.gdb.run("monitor nmi")  # QEMU sends it to all of them; most are in ring 3
    one.gdb.resume()
    one.qemu.wait_serial("kernel stopped")
    one.gdb.interrupt()
    one.gdb.finish()
    serial = one.qemu.serial()
    assert (serial.count("kernel fault: NMI on CPU"), serial.count("kernel stopped")) == (1, 1)
    assert "killed" not in serial, "an NMI is not the program's doing"


def test_too_little_memory_is_a_panic_that_says_so() -> None:
    with boot("run=echo", qemu=("-m", "3")) as qemu:
        qemu.wait_serial("kernel stopped")
        assert "kernel panic on CPU 0" in qemu.serial()
        assert "memory for the kernel's page tables" in qemu.serial()


def test_shared_gs_block(guest: OpenGuest) -> None:
    one = guest(variant="shared-gs-block", smp=2, plugin=False, stopped=True)
    first, second = truths_at_the_first_trap(one)
    assert first.gs_base == second.gs_base


def test_lstar_differs(guest: OpenGuest) -> None:
    one = guest(variant="lstar-differs", smp=2, plugin=False, attach=False)
    one.qemu.wait_serial("receiver: 1024 messages")
    first, second = truths(one)
    assert first.lstar == one.gdb.address("syscall_entry")
    assert second.lstar == one.gdb.address("syscall_entry_other")


def test_user_rsp_before_switch(guest: OpenGuest) -> None:
    gdb = guest(variant="user-rsp-before-switch", plugin=False, stopped=True).gdb
    gdb.run("hbreak *syscall_entry")
    gdb.run("continue")
    user_rsp = gdb.integer("$rsp")
    step_once(gdb)
    step_once(gdb)
    assert gdb.integer("$rsp") == user_rsp - 8, "pushed to where the user's rsp points"


def test_seed_literal_passes_the_first_argument_as_the_number(guest: OpenGuest) -> None:
    gdb = guest(variant="seed-literal", plugin=False, stopped=True).gdb
    gdb.run("hbreak *syscall_entry")
    gdb.run("continue")
    number, argument = gdb.integer("$rax"), gdb.integer("$rdi")
    gdb.run(f"hbreak *{gdb.address('syscall_dispatch'):#x}")
    gdb.run("continue")
    assert (gdb.integer("$rax"), gdb.integer("$rdi")) == (number, argument)
    assert number != argument


def test_stripped_runs_without_symbols() -> None:
    assert not symbols(build_kernel("stripped").elf)
    with boot("run=selftest", variant="stripped") as qemu:
        assert qemu.wait_exit(60) == 0


def test_truth_less_runs_without_the_record() -> None:
    names = symbols(build_kernel("truth-less").elf)
    assert "EXO_TRUTH" not in names
    assert "SYSCALL_COUNT" in names
    with boot("run=selftest", variant="truth-less") as qemu:
        assert qemu.wait_exit(60) == 0


def symbols(elf: Path) -> set[str]:
    listed = subprocess.run(["nm", elf], capture_output=True, text=True, timeout=20, check=True).stdout
    return {line.split()[-1] for line in listed.splitlines()}
