"""`exo-msr` against what the kernel itself wrote down, on every CPU, by every route."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.gdb import Gdb
from tests.harness.session import Guest, open_guest
from tests.harness.truth import CpuTruth, read_cpu_truths
from tests.integration.stops import attach_running, stop_at

CPUS = 4
FIXED = ("efer", "star", "lstar", "cstar", "fmask")


@pytest.fixture(scope="module")
def stopped() -> Iterator[Guest]:
    """Four CPUs, stopped in the dispatcher. Only for tests that leave the guest as it is."""
    with open_guest(smp=CPUS, attach=False) as guest:
        stop_in_dispatcher(guest)
        yield guest


def stop_in_dispatcher(guest: Guest) -> None:
    """Let every CPU come up, then stop the next system call."""
    attach_running(guest)
    stop_at(guest.gdb, "syscall_dispatch")


def values(gdb: Gdb, command: str) -> dict[int, dict[str, Any]]:
    return {cpu["cpu"]: cpu["msrs"] for cpu in gdb.json(command)["cpus"]}


def check_fixed(msrs: dict[str, Any], truth: CpuTruth, source: str | None = None) -> None:
    for name in FIXED:
        entry = msrs[f"IA32_{name.upper()}"]
        assert int(entry["value"], 16) == getattr(truth, name), name
        assert source is None or entry["source"] == source


@pytest.mark.parametrize("via", ["best", "qmp", "rdmsr"])
def test_every_cpu_has_the_kernels_own_values(stopped: Guest, via: str) -> None:
    truths = read_cpu_truths(stopped.gdb)
    assert len(truths) == CPUS
    found = values(stopped.gdb, f"exo-msr --all-cpus --via {via}")
    assert sorted(found) == list(range(CPUS))
    for truth in truths:
        check_fixed(found[truth.cpu_id], truth, None if via == "best" else via)
        assert truth.gs_base in bases(found[truth.cpu_id])


def test_the_best_sources_are_those_that_do_not_touch_the_guest(stopped: Guest) -> None:
    (msrs,) = values(stopped.gdb, "exo-msr").values()
    assert {name: entry["source"] for name, entry in msrs.items()} == {
        "IA32_EFER": "gdb",
        "IA32_STAR": "qmp",
        "IA32_LSTAR": "qmp",
        "IA32_CSTAR": "qmp",
        "IA32_FMASK": "qmp",
        "IA32_FS_BASE": "gdb",
        "IA32_GS_BASE": "gdb",
        "IA32_KERNEL_GS_BASE": "gdb",
    }


def test_the_stub_alone_says_what_it_does_not_have(stopped: Guest) -> None:
    (msrs,) = values(stopped.gdb, "exo-msr --via gdb").values()
    assert msrs["IA32_STAR"] == {"unavailable": "QEMU's GDB stub does not have it"}
    assert int(msrs["IA32_EFER"]["value"], 16) == stopped.gdb.integer("$efer")


def test_decoding(stopped: Guest) -> None:
    (msrs,) = values(stopped.gdb, "exo-msr").values()
    assert msrs["IA32_EFER"]["decoded"]["flags"] == ["SCE", "LME", "LMA", "NXE"]
    assert msrs["IA32_LSTAR"]["decoded"]["symbol"] == "syscall_entry"
    assert msrs["IA32_FMASK"]["decoded"]["clears"] == ["IF"]
    assert msrs["IA32_STAR"]["decoded"]["sysret64_cs"] == "0x2b"
    text = stopped.gdb.run("exo-msr")
    assert "syscall_entry" in text
    assert "SYSRETQ (to 64-bit) loads CS 0x2b, SS 0x23" in text


@pytest.mark.parametrize("via", ["best", "rdmsr"])
def test_the_selected_thread_decides(stopped: Guest, via: str) -> None:
    truths = {truth.cpu_id: truth for truth in read_cpu_truths(stopped.gdb)}
    for thread in (3, 1, 4):
        stopped.gdb.reply(f"thread {thread}")  # complains when the source file is not on this machine
        ((cpu, msrs),) = values(stopped.gdb, f"exo-msr --via {via}").items()
        assert cpu == thread - 1
        active = int(msrs["IA32_GS_BASE"]["value"], 16)
        waiting = int(msrs["IA32_KERNEL_GS_BASE"]["value"], 16)
        assert truths[cpu].gs_base in (active, waiting)
        assert stopped.gdb.integer("$_thread") == thread


def test_differences_between_cpus_are_marked(stopped: Guest) -> None:
    rows = {line.split()[0]: line for line in stopped.gdb.run("exo-msr --all-cpus").splitlines()[1:]}
    assert "!=" in rows["GS_BASE"]
    assert "!=" not in rows["LSTAR"]


def test_reading_by_number_touches_the_guest_and_says_so(stopped: Guest) -> None:
    (msrs,) = values(stopped.gdb, "exo-msr read 0xc0000082 pat").values()
    assert int(msrs["IA32_LSTAR"]["value"], 16) == read_cpu_truths(stopped.gdb)[0].lstar
    assert msrs["IA32_LSTAR"]["source"] == "rdmsr"
    assert msrs["IA32_PAT"]["decoded"]["types"][0] == "WB"
    assert "The guest was touched" in stopped.gdb.run("exo-msr read pat")
    assert "touched" not in stopped.gdb.run("exo-msr")


def test_the_users_mistakes(stopped: Guest) -> None:
    assert "no MSR is called 'nosuch'" in stopped.gdb.fails("exo-msr nosuch")
    assert "invalid choice" in stopped.gdb.fails("exo-msr --via nosuch")
    assert "is no 64-bit value" in stopped.gdb.fails("exo-msr write fmask no_such_symbol")


def test_the_frame_that_the_user_selected_stays_selected(stopped: Guest) -> None:
    stopped.gdb.reply("thread 1")
    stopped.gdb.reply("frame 1")
    stopped.gdb.run("exo-msr read star")
    assert stopped.gdb.reply("frame").out.startswith("#1 ")
    stopped.gdb.reply("frame 0")


def test_without_qmp_rdmsr_takes_over(stopped: Guest) -> None:
    stopped.gdb.run("set exo qmp-socket /nonexistent/qmp.sock")
    try:
        found = values(stopped.gdb, "exo-msr --all-cpus")
    finally:
        stopped.gdb.run("set exo qmp-socket")
    for truth in read_cpu_truths(stopped.gdb):
        check_fixed(found[truth.cpu_id], truth)
        assert found[truth.cpu_id]["IA32_STAR"]["source"] == "rdmsr"
        assert found[truth.cpu_id]["IA32_EFER"]["source"] == "gdb"


def test_write_changes_the_msr_and_nothing_else() -> None:
    with open_guest(attach=False) as guest:
        stop_in_dispatcher(guest)
        before = guest.gdb.run("info registers")
        change = guest.gdb.json("exo-msr write fmask 0x47700")
        assert change["before"]["value"] == hex(read_cpu_truths(guest.gdb)[0].fmask)
        assert change["after"] == {"value": "0x47700", "source": "rdmsr"}
        assert "65 bits" in guest.gdb.fails("exo-msr write fmask 0x1ffffffffffffffff")
        assert guest.gdb.run("info registers") == before
        (msrs,) = values(guest.gdb, "exo-msr --via qmp").values()
        assert msrs["IA32_FMASK"]["value"] == "0x47700"
        stop_at(guest.gdb, "syscall_dispatch")


def test_all_msrs_of_all_cpus_take_one_round_trip(stopped: Guest) -> None:
    gdb = stopped.gdb
    gdb.run("python import exogdb.target.msr.msrs as m; real = m.read_device_state; asked = []")
    gdb.run("python m.read_device_state = lambda: asked.append(1) or real()")
    try:
        gdb.run("exo-msr --all-cpus star lstar cstar fmask pat apic_base sysenter_cs sysenter_esp tsc_aux")
        assert gdb.run("python print(len(asked))").strip() == "1"
    finally:
        gdb.run("python m.read_device_state = real")


def test_a_device_state_that_contradicts_the_stub_is_refused() -> None:
    with open_guest(attach=False) as guest:
        stop_in_dispatcher(guest)
        gdb = guest.gdb
        gdb.run("python import exogdb.target.msr.msrs as m; old = m.read_device_state()")
        gdb.run("python m.read_device_state = lambda: old")
        gdb.run("set $k_gs_base = 0x1234")
        (msrs,) = values(gdb, "exo-msr").values()
        assert "contradicts the GDB stub: IA32_KERNEL_GS_BASE" in msrs["IA32_STAR"]["unavailable"]
        (msrs,) = values(gdb, "exo-msr --via rdmsr").values()
        check_fixed(msrs, read_cpu_truths(gdb)[0], "rdmsr")


MACHINES = {
    # APIC ids 0 1 2 4 5 6: a core has room for four threads.
    "q35": ("-machine", "q35", "-cpu", "EPYC", "-smp", "6,sockets=1,cores=2,threads=3"),
    "max": ("-cpu", "max"),
    # The kernel finds no second CPU there, which stays halted with interrupts off.
    "microvm": ("-machine", "microvm"),
    # QEMU's CPU 3 is the third one that the kernel finds; there is no CPU 2.
    "gap": ("-smp", "2,maxcpus=4,sockets=4", "-device", "qemu64-x86_64-cpu,socket-id=3,core-id=0,thread-id=0"),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_other_machines_topologies_and_cpu_models(machine: str) -> None:
    with open_guest(smp=2, attach=False, qemu=MACHINES[machine]) as guest:
        stop_in_dispatcher(guest)
        for via in ("qmp", "rdmsr"):
            found = values(guest.gdb, f"exo-msr --all-cpus --via {via}")
            assert sorted(found) == {"q35": [0, 1, 2, 3, 4, 5], "gap": [0, 1, 3]}.get(machine, [0, 1])
            for truth in read_cpu_truths(guest.gdb):
                (msrs,) = (each for each in found.values() if truth.gs_base in bases(each))
                check_fixed(msrs, truth, via)
        if machine == "gap":
            assert "the guest has CPUs 0, 1 and 3" in guest.gdb.fails("exo-syscall frame --cpu 2")


def bases(msrs: dict[str, Any]) -> set[int]:
    """Both GS bases, those of them that are there."""
    entries = (msrs[f"IA32_{name}_BASE"] for name in ("GS", "KERNEL_GS"))
    return {int(entry["value"], 16) for entry in entries if "value" in entry}


def test_looking_on_behalf_of_another_command_never_executes_rdmsr() -> None:
    with open_guest(attach=False) as guest:
        stop_in_dispatcher(guest)
        gdb = guest.gdb
        gdb.run("set exo qmp-socket /nonexistent/qmp.sock")
        gdb.run("python import exogdb.target.msr.rdmsr as m; m.read_msrs_in_guest = None")
        for command in ("exo-gs", "exo-gdt", "exo-idt", "exo-tss", "exo-syscall frame", "exo-msr --via quiet"):
            assert "NoneType" not in gdb.reply(command).err, command


def test_names_that_are_subcommands_too(stopped: Guest) -> None:
    """`exo-msr star` draws STAR; with more names behind it, it is a name among names."""
    gdb = stopped.gdb
    assert list(gdb.json("exo-msr star lstar")["cpus"][0]["msrs"]) == ["IA32_STAR", "IA32_LSTAR"]
    assert list(gdb.json("exo-msr lstar fmask --all-cpus")["cpus"][0]["msrs"]) == ["IA32_LSTAR", "IA32_FMASK"]
    assert "loads" in gdb.json("exo-msr star")
