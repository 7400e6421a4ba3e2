"""`exo-msr` and `exo-gs` on a kernel that nobody here wrote, against Linux's own MSR driver."""

from tests.harness.linux import LinuxTruth, open_linux
from tests.harness.session import Guest

NAMES = {0xC0000080: "IA32_EFER", 0xC0000081: "IA32_STAR", 0xC0000082: "IA32_LSTAR", 0xC0000083: "IA32_CSTAR",
         0xC0000084: "IA32_FMASK"}  # fmt: skip


def check_msrs(guest: Guest, truth: LinuxTruth, via: str) -> None:
    found = {cpu["cpu"]: cpu["msrs"] for cpu in guest.gdb.json(f"exo-msr --all-cpus --via {via}")["cpus"]}
    compared = [(cpu, number) for cpu, number in truth.msrs if number in NAMES]
    assert compared
    for cpu, number in compared:
        entry = found[cpu][NAMES[number]]
        assert int(entry["value"], 16) == truth.msrs[cpu, number], (cpu, NAMES[number])
        assert entry["source"] == via


def test_msrs_gs_and_tables_of_linux() -> None:
    with open_linux(smp=2) as (guest, truth):
        gdb = guest.gdb
        check_msrs(guest, truth, "qmp")
        entry = truth.symbols["entry_SYSCALL_64"]
        gdb.run(f"tbreak *{entry:#x}")
        gdb.reply("continue")
        (row,) = gdb.json("exo-gs")["cpus"]
        assert row["state"] == "entry window (swapgs not yet executed)"
        assert (row["active"], int(row["kernel"], 16) >> 63) == ("user", 1)
        check_msrs(guest, truth, "rdmsr")
        gdb.run(f"tbreak *{gdb.integer('$rcx'):#x}")
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
        (page_fault,) = gdb.json("exo-idt 14")["gates"]
        assert page_fault["name"] == "#PF"
