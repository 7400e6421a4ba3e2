"""`exo-msr` and `exo-gs` on a kernel that nobody here wrote, against Linux's own MSR driver."""

from typing import Any

from tests.harness.gdb import Gdb
from tests.harness.linux import LinuxTruth, open_linux
from tests.harness.session import Guest

NAMES = {0xC0000080: "IA32_EFER", 0xC0000081: "IA32_STAR", 0xC0000082: "IA32_LSTAR", 0xC0000083: "IA32_CSTAR",
         0xC0000084: "IA32_FMASK"}  # fmt: skip


BEHIND_STI = "right behind STI"
MOST_STEPS = 5


def read_msrs(gdb: Gdb, via: str) -> dict[int, dict[str, Any]]:
    """Every CPU's MSRs. An idle CPU may be right behind STI, where RDMSR is refused: it gets the step it wants."""
    for _ in range(MOST_STEPS):
        found = {cpu["cpu"]: cpu["msrs"] for cpu in gdb.json(f"exo-msr --all-cpus --via {via}")["cpus"]}
        behind = [cpu for cpu, msrs in found.items() if BEHIND_STI in str(msrs)]
        if not behind:
            return found
        for cpu in behind:
            gdb.run(f"with scheduler-locking on -- thread apply {cpu + 1} stepi")
    raise AssertionError(found)


def check_msrs(guest: Guest, truth: LinuxTruth, via: str) -> None:
    found = read_msrs(guest.gdb, via)
    compared = [(cpu, number) for cpu, number in truth.msrs if number in NAMES]
    assert compared
    for cpu, number in compared:
        entry = found[cpu][NAMES[number]]
        assert "value" in entry, (cpu, NAMES[number], entry)
        assert int(entry["value"], 16) == truth.msrs[cpu, number], (cpu, NAMES[number])
        assert entry["source"] == via


LOCAL_TIMER = 0xEC
CR4_LA57 = 1 << 12
ENTRY_WINDOW = "entry window (swapgs not yet executed)"


def check_interrupt_from_ring_3(gdb: Gdb) -> None:
    """Linux runs SWAPGS in a function that its handlers call; until then the user's base is right."""
    (gate,) = gdb.json(f"exo-idt {LOCAL_TIMER:#x}")["gates"]
    gdb.run("set language c")
    gdb.run(f"tbreak *{gate['handler']} if *(unsigned long *)($rsp + 8) & 3")
    gdb.reply("continue")
    (row,) = gdb.json("exo-gs")["cpus"]
    assert (row["state"], row["active"], row["cpl"]) == (ENTRY_WINDOW, "user", 0)


def test_msrs_gs_and_tables_of_linux_with_5_level_paging() -> None:
    with open_linux(smp=2, cpu="max") as (guest, truth):
        gdb = guest.gdb
        assert gdb.integer("$cr4") & CR4_LA57
        check_msrs(guest, truth, "qmp")
        entry = truth.symbols["entry_SYSCALL_64"]
        gdb.run(f"tbreak *{entry:#x}")
        gdb.reply("continue")
        (row,) = gdb.json("exo-gs")["cpus"]
        assert row["state"] == ENTRY_WINDOW
        assert (row["active"], int(row["kernel"], 16) >> 63) == ("user", 1)
        check_msrs(guest, truth, "rdmsr")
        # Back from a call that this CPU began: those of fork and sched_setaffinity return elsewhere.
        gdb.run("tbreak *((char *)getppid_syscall + 2)")
        gdb.reply("continue")
        assert gdb.integer("$exo_cpl()") == 3
        check_msrs(guest, truth, "rdmsr")
        (row,) = gdb.json("exo-gs")["cpus"]
        assert row["state"] == "user"
        assert row["percpu_known_by"] == "the offsets that the entry stub uses"
        assert gdb.json("exo-msr star")["loads"][0]["hits"].startswith("64-bit code, DPL 0")
        stacks = {stack["name"]: stack for stack in gdb.json("exo-tss")["stacks"]}
        assert stacks["IST1"]["usable"]
        assert "#DF" in stacks["IST1"]["used_by"]
        assert stacks["RSP2"]["problem"] == "in a user page"  # rsp of the last call: nothing enters ring 2
        (page_fault,) = gdb.json("exo-idt 14")["gates"]
        assert page_fault["name"] == "#PF"
        check_interrupt_from_ring_3(gdb)
