"""Flaws planted into a sound, stopped kernel with plain GDB: `exo-syscall check` reports each, and nothing else.

Mistakes that need no kernel of their own: a bit in a register, in a gate, the TSS or a page-table entry. Those
about page-table isolation are planted into the distribution's Linux, which has it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.harness.gdb import Gdb
from tests.harness.linux import open_linux
from tests.harness.session import Guest
from tests.harness.truth import CpuTruth, read_cpu_truths
from tests.integration.test_check import at_first_program, check, found

PHYSICAL_MAP = 0xFFFF_8880_0000_0000  # kernel/README.md, Memory map
KERNEL_BASE = 0xFFFF_FFFF_8000_0000
WRITABLE, USER, XD = 1 << 1, 1 << 2, 1 << 63
ADDRESS = 0x000F_FFFF_FFFF_F000
DEBUG, NMI, GENERAL_PROTECTION = 1, 2, 13

# What is changed (a C lvalue), the bits that are cleared in it, those that are set then.
Change = tuple[str, int, int]


def byte(address: int) -> str:
    return f"*(unsigned char *){address:#x}"


def word(address: int) -> str:
    return f"*(unsigned long *){address:#x}"


def ist(cpu: CpuTruth, vector: int, number: int) -> Change:
    return byte(cpu.idt + 16 * vector + 4), 0x07, number


def in_tss(cpu: CpuTruth, offset: int, value: int) -> Change:
    return word(cpu.tss + offset), (1 << 64) - 1, value


def entries(gdb: Gdb, address: int, physical_map: int = PHYSICAL_MAP) -> list[str]:
    """The page-table entries on the way to `address`, from the top, as lvalues in the map of physical memory."""
    table, found_entries = gdb.integer("$cr3") & ADDRESS, []
    for shift in (39, 30, 21, 12):
        found_entries.append(word(physical_map + table + 8 * (address >> shift & 511)))
        table = gdb.integer(found_entries[-1]) & ADDRESS
    return found_entries


# What is planted into the reference kernel, and every rule that must notice.
PLANTED_HERE = {
    "CR0.WP off": "EXO063",
    "CR4.SMEP off": "EXO060",
    "CR4.SMAP off": "EXO061",
    "CR4.UMIP off": "EXO066",
    "CR4.FSGSBASE on": "EXO038",
    "NMI without IST stack": "EXO023",
    "#DB without IST stack": "EXO023",
    "NMI on the stack of other exceptions": "EXO046",
    "#GP open to INT n": "EXO026",
    "call gate for programs in front of SYSRET's segments": "EXO021 EXO027",
    "RSP0 nowhere": "EXO041",
    "RSP0 in the physical map": "EXO047",
    "RSP0 is an IST stack": "EXO046",
    "IST3 is 0": "EXO042",
    "IST1 is that of another CPU": "EXO043",
    "kernel rsp 0": "EXO040",
    "user data not writable by SYSRET": "EXO021",
    "kernel code not present": "EXO020",
    "TSS is an LDT": "EXO024",
    "entry stub not executable": "EXO003",
    "entry stub writable": "EXO064",
    "data executable": "EXO065",
    "IDT in a user page": "EXO025 EXO065",
    "stack executable": "EXO067",
    "stack writable by programs": "EXO040 EXO041 EXO068",
    "entry stub writable in the physical map": "EXO069",
    "per-CPU block read-only": "EXO044",
    # Bit 63 of a page-table entry is reserved then: whatever is not executable is not mapped.
    "EFER.NXE off": "EXO025 EXO041 EXO042 EXO044 EXO050 EXO062",
}
# The same, each with a test of its own.
ONE_BY_ONE = {
    "page tables of a program without the kernel's slots or without the IDT (Linux)": "EXO007",
    "SYSENTER leads to a program": "EXO008",
    "LSTAR in another mapping of the stub": "EXO005 EXO050",
}


def plants(gdb: Gdb, cpu: CpuTruth, other: CpuTruth) -> dict[str, list[Change]]:
    """What is changed for each, on `cpu`, which is selected."""
    stub, percpu = gdb.address("syscall_entry"), gdb.integer("(long)$k_gs_base")
    data, stack = gdb.address("SYSCALL_COUNT"), gdb.integer(word(percpu)) - 8
    ist1, other_ist1 = (gdb.integer(word(each.tss + 0x24)) for each in (cpu, other))
    return {
        "CR0.WP off": [("$cr0", 1 << 16, 0)],
        "CR4.SMEP off": [("$cr4", 1 << 20, 0)],
        "CR4.SMAP off": [("$cr4", 1 << 21, 0)],
        "CR4.UMIP off": [("$cr4", 1 << 11, 0)],
        "CR4.FSGSBASE on": [("$cr4", 0, 1 << 16)],
        "NMI without IST stack": [ist(cpu, NMI, 0)],
        "#DB without IST stack": [ist(cpu, DEBUG, 0)],
        "NMI on the stack of other exceptions": [ist(cpu, NMI, 1)],
        "#GP open to INT n": [(byte(cpu.idt + 16 * GENERAL_PROTECTION + 5), 0x60, 0x60)],
        "call gate for programs in front of SYSRET's segments": [
            (word(cpu.gdt + 0x18), (1 << 64) - 1, (stub & 0xFFFF0000 | 0xEC00) << 32 | 8 << 16 | stub & 0xFFFF),
            (word(cpu.gdt + 0x20), (1 << 64) - 1, stub >> 32),
        ],
        "RSP0 nowhere": [in_tss(cpu, 4, 0xFFFF_FFFF_DEAD_0000)],
        "RSP0 in the physical map": [in_tss(cpu, 4, PHYSICAL_MAP + 0x60_0000)],
        "RSP0 is an IST stack": [in_tss(cpu, 4, ist1)],
        "IST3 is 0": [in_tss(cpu, 0x34, 0)],
        "IST1 is that of another CPU": [in_tss(cpu, 0x24, other_ist1)],
        "kernel rsp 0": [(word(percpu), (1 << 64) - 1, 0)],
        "user data not writable by SYSRET": [(byte(cpu.gdt + 0x20 + 5), 0x02, 0)],
        "kernel code not present": [(byte(cpu.gdt + 0x08 + 5), 0x80, 0)],
        "TSS is an LDT": [(byte(cpu.gdt + 0x30 + 5), 0x0F, 0x02)],
        "entry stub not executable": [(entries(gdb, stub)[-1], 0, XD)],
        "entry stub writable": [(entries(gdb, stub)[-1], 0, WRITABLE)],
        "data executable": [(entries(gdb, data)[-1], XD, 0)],
        "IDT in a user page": [(entry, 0, USER) for entry in entries(gdb, cpu.idt)],
        "stack executable": [(entries(gdb, stack)[-1], XD, 0)],
        "stack writable by programs": [(entry, 0, USER) for entry in entries(gdb, stack)],
        "entry stub writable in the physical map": [
            (entries(gdb, PHYSICAL_MAP + stub - KERNEL_BASE)[-1], 0, WRITABLE)
        ],
        "per-CPU block read-only": [(entries(gdb, percpu)[-1], WRITABLE, 0)],
        "EFER.NXE off": [("$efer", 1 << 11, 0)],
    }


@contextmanager
def changed(gdb: Gdb, change: Change) -> Iterator[None]:
    place, cleared, bits = change
    before = gdb.integer(f"(unsigned long){place}")
    gdb.run(f"set var {place} = {before & ~cleared | bits:#x}ul")
    try:
        yield
    finally:
        gdb.run(f"set var {place} = {before:#x}ul")


@contextmanager
def physical_memory(gdb: Gdb) -> Iterator[None]:
    """GDB's addresses are physical ones meanwhile (QEMU, "GDB usage"): Linux's map is not in the user's tables."""
    gdb.run("maint packet Qqemu.PhyMemMode:1")
    try:
        yield
    finally:
        gdb.run("maint packet Qqemu.PhyMemMode:0")


@pytest.fixture(scope="module")
def sound_guest() -> Iterator[Guest]:
    with at_first_program(smp=2, qemu=("-cpu", "max,vendor=GenuineIntel")) as guest:
        guest.gdb.run("set language c")
        yield guest


def test_each_flaw_that_is_planted_is_found_and_no_other(sound_guest: Guest) -> None:
    gdb = sound_guest.gdb
    cpus = read_cpu_truths(gdb)
    cpu = cpus.pop(gdb.integer("$_thread") - 1)
    gdb.run("set language c")
    before = found(check(sound_guest))
    changes = plants(gdb, cpu, *cpus)
    assert list(changes) == list(PLANTED_HERE)
    for name, expected in PLANTED_HERE.items():
        with ExitStack() as stack:
            for change in changes[name]:
                stack.enter_context(changed(gdb, change))
            assert found(check(sound_guest)) - before == set(expected.split()), name
    assert found(check(sound_guest)) == before


def test_an_entry_in_another_mapping_of_the_stub_is_found(sound_guest: Guest) -> None:
    """LSTAR leads to the right code, but not where the kernel's symbols have it."""
    gdb = sound_guest.gdb
    stub = gdb.address("syscall_entry")
    alias = PHYSICAL_MAP + stub - KERNEL_BASE
    before = found(check(sound_guest))
    with changed(gdb, (entries(gdb, alias)[-1], XD, 0)):
        gdb.run(f"exo-msr write lstar {alias:#x}")
        assert found(check(sound_guest)) - before == {"EXO005", "EXO050"}  # the other CPU is right
        gdb.run(f"exo-msr write lstar {stub:#x}")
    assert found(check(sound_guest)) == before


def test_sysenter_that_leads_to_a_program_is_found(sound_guest: Guest) -> None:
    gdb = sound_guest.gdb
    gdb.run("exo-msr write sysenter_eip 0x401000")
    assert "EXO008" not in found(check(sound_guest))  # with a null selector SYSENTER raises #GP
    gdb.run("exo-msr write sysenter_cs 8")
    assert "EXO008" in found(check(sound_guest), "error")
    gdb.run("exo-msr write sysenter_cs 0")
    assert "EXO008" not in found(check(sound_guest))


def test_what_the_users_page_tables_lack_is_found() -> None:
    """In the tables of a program, not in the kernel's: the page of the slot that the stub saves rsp in, then
    everything that an interrupt needs.
    """
    with open_linux(smp=1, cpu="Skylake-Client") as (guest, _):
        gdb = guest.gdb
        gdb.run("thbreak syscall")
        gdb.run("continue")
        slot = int(gdb.json("exo-syscall abi")["user_rsp_slot"], 16) + gdb.integer("(long)$k_gs_base")
        idt = int(gdb.json("exo-idt")["base"], 16)
        sound = check(guest)
        assert "EXO007" not in found(sound)
        for address, level, what in ((slot, -1, "gs:["), (idt, 0, "the IDT at ")):
            with physical_memory(gdb):
                entry = entries(gdb, address, physical_map=0)[level]
                before = gdb.integer(entry)
                gdb.run(f"set var {entry} = 0")
            answer = check(guest)
            assert found(answer, "error") == {"EXO007"}
            [rule] = [each for each in answer["rules"] if each["id"] == "EXO007"]
            assert any(
                what in finding["found"] and f"{address:#x}" in finding["found"] for finding in rule["findings"]
            )
            with physical_memory(gdb):
                gdb.run(f"set var {entry} = {before:#x}ul")
        assert found(check(guest)) == found(sound)
