"""`exo-gdt`, `exo-idt`, `exo-tss`, `exo-msr star` and `exo-msr lstar` against the kernel's record and symbols."""

import struct
from collections.abc import Iterator

import pytest

from tests.harness.session import Guest, open_guest
from tests.harness.truth import CpuTruth, read_cpu_truths
from tests.integration.stops import attach_running, stop_at


@pytest.fixture(scope="module")
def stopped() -> Iterator[Guest]:
    """Two CPUs, stopped at the first instruction of the entry stub. Only for tests that change nothing."""
    with open_guest(smp=2, attach=False) as guest:
        attach_running(guest)
        stop_at(guest.gdb, "syscall_entry")
        yield guest


@pytest.fixture(params=[1, 2])
def truth(stopped: Guest, request: pytest.FixtureRequest) -> CpuTruth:
    """Select a thread; what the kernel says about that CPU."""
    stopped.gdb.reply(f"thread {request.param}")
    thread: int = request.param
    return read_cpu_truths(stopped.gdb)[thread - 1]


def test_gdt(stopped: Guest, truth: CpuTruth) -> None:
    table = stopped.gdb.json("exo-gdt")
    assert (table["cpu"], int(table["base"], 16)) == (truth.cpu_id, truth.gdt)
    by_selector = {entry["selector"]: entry for entry in table["entries"]}
    words = struct.unpack("<6Q", stopped.gdb.memory(truth.gdt, 48))
    assert [int(by_selector[hex(8 * n)]["raw"], 16) for n in range(6)] == list(words)
    assert by_selector["0x8"]["kind"] == "64-bit code"
    assert by_selector["0x8"]["star"] == ["SYSCALL CS"]
    assert by_selector["0x28"]["dpl"] == 3
    assert by_selector["0x28"]["star"] == ["SYSRETQ CS"]
    assert by_selector["0x30"]["loaded"] == ["TR"]
    assert int(by_selector["0x30"]["base"], 16) == truth.tss
    code = hex(stopped.gdb.integer("$cs") & ~3)
    assert "CS" in by_selector[code]["loaded"]


def test_idt(stopped: Guest, truth: CpuTruth) -> None:
    table = stopped.gdb.json("exo-idt")
    assert int(table["base"], 16) == truth.idt
    stubs = stopped.gdb.address("trap_stubs")
    gates = {gate["vector"]: gate for gate in table["gates"]}
    for vector in range(32):
        assert int(gates[vector]["handler"], 16) == stubs + 16 * vector
        assert gates[vector]["symbol"].startswith("trap_stubs")
        assert "findings" not in gates[vector]
    assert len(gates) + table["absent"] == 256
    assert (gates[8]["name"], gates[14]["name"]) == ("#DF", "#PF")
    (one,) = stopped.gdb.json("exo-idt #PF")["gates"]
    assert one == gates[14]
    assert "no vector 300" in stopped.gdb.fails("exo-idt 300")


def test_tss(stopped: Guest, truth: CpuTruth) -> None:
    table = stopped.gdb.json("exo-tss")
    assert int(table["base"], 16) == truth.tss
    stacks = {stack["name"]: stack for stack in table["stacks"]}
    raw = stopped.gdb.memory(truth.tss, 104)
    assert int(stacks["RSP0"]["address"], 16) == int.from_bytes(raw[4:12], "little")
    for number in range(1, 8):
        at = 36 + 8 * (number - 1)
        assert int(stacks[f"IST{number}"]["address"], 16) == int.from_bytes(raw[at : at + 8], "little")
    used = [stack for stack in stacks.values() if stack["address"] != "0x0"]
    assert used
    assert all(stack["usable"] for stack in used)
    assert "#DF" in stacks["IST2"]["used_by"]


def test_star(stopped: Guest, truth: CpuTruth) -> None:
    report = stopped.gdb.json("exo-msr star")
    assert int(report["value"], 16) == truth.star
    hits = {(load["instruction"], load["register"]): load["hits"] for load in report["loads"]}
    assert hits["SYSCALL", "CS"].startswith("64-bit code, DPL 0")
    assert hits["SYSRETQ", "CS"].startswith("64-bit code, DPL 3")
    assert hits["SYSRETQ/L", "SS"].startswith("data, DPL 3")
    (finding,) = report["findings"]
    assert "AMD" in finding


def test_lstar(stopped: Guest, truth: CpuTruth) -> None:
    report = stopped.gdb.json("exo-msr lstar --count 5")
    assert int(report["value"], 16) == truth.lstar == stopped.gdb.address("syscall_entry")
    assert len(report["code"]) == 5
    assert report["code"][0]["text"] == "swapgs"
    assert report["code"][0]["place"] == "syscall_entry"
    assert "entry.S:" in report["code"][0]["source"]
    assert report["findings"] == []


@pytest.mark.parametrize("command", ["exo-gdt", "exo-idt", "exo-tss", "exo-msr star", "exo-msr lstar"])
def test_text_names_the_cpu(stopped: Guest, truth: CpuTruth, command: str) -> None:
    assert stopped.gdb.run(command).startswith(f"CPU {truth.cpu_id}  ")


def test_the_record_of_a_kernel_with_a_wrong_star() -> None:
    # The fault waits for a tick in ring 3, where `spin` always is.
    with open_guest("run=spin", variant="star-off-by-one", attach=False) as guest:
        attach_running(guest, after="stack trace:")
        (truth,) = read_cpu_truths(guest.gdb)
        report = guest.gdb.json("exo-msr star")
        assert int(report["value"], 16) == truth.star
        assert len(report["findings"]) > 1


def test_tables_of_another_form_are_not_decoded() -> None:
    """At reset there is a real-mode IDT, in 32-bit mode gates of 8 bytes: no line of either would be true."""
    with open_guest(stopped=True) as guest:
        for place in ("reset", "pvh_start"):
            if place != "reset":
                guest.gdb.run(f"thbreak *{guest.gdb.address(place):#x}")
                guest.gdb.reply("continue")
            for command in ("exo-gdt", "exo-idt", "exo-tss", "exo-msr star"):
                assert "CPU 0 is not in long mode" in guest.gdb.fails(command), place


def test_cpus_that_differ_are_marked() -> None:
    with open_guest(variant="lstar-differs", smp=2, attach=False) as guest:
        attach_running(guest)
        stop_at(guest.gdb, "syscall_dispatch")
        truths = read_cpu_truths(guest.gdb)
        assert truths[0].lstar != truths[1].lstar
        found = {cpu["cpu"]: cpu["msrs"] for cpu in guest.gdb.json("exo-msr --all-cpus")["cpus"]}
        for truth in truths:
            assert int(found[truth.cpu_id]["IA32_LSTAR"]["value"], 16) == truth.lstar
        (row,) = [line for line in guest.gdb.run("exo-msr --all-cpus").splitlines() if line.startswith("LSTAR")]
        assert "!=" in row
