"""Flaws planted into a sound, stopped kernel with plain GDB: `exo-syscall check` reports each, and nothing else.

Mistakes that need no kernel of their own: a bit in a register, in a gate, the TSS or a page-table entry.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.harness.gdb import Gdb
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


def entries(gdb: Gdb, address: int) -> list[str]:
    """The page-table entries on the way to `address`, from the top; a large page has fewer."""
    table, found_entries = gdb.integer("$cr3") & ADDRESS, []
    for shift in (39, 30, 21, 12):
        found_entries.append(word(PHYSICAL_MAP + table + 8 * (address >> shift & 511)))
        table = gdb.integer(found_entries[-1]) & ADDRESS
    return found_entries


def plants(gdb: Gdb, cpu: CpuTruth) -> dict[str, tuple[str, list[Change]]]:
    """Every flaw: the rules that must notice, and what is changed."""
    stub, percpu = gdb.address("syscall_entry"), gdb.integer("(long)$k_gs_base")
    data = gdb.address("SYSCALL_COUNT")
    ist1 = gdb.integer(word(cpu.tss + 0x24))
    return {
        "CR0.WP off": ("EXO063", [("$cr0", 1 << 16, 0)]),
        "CR4.SMEP off": ("EXO060", [("$cr4", 1 << 20, 0)]),
        "CR4.UMIP off": ("EXO066", [("$cr4", 1 << 11, 0)]),
        "CR4.FSGSBASE on": ("EXO038", [("$cr4", 0, 1 << 16)]),
        "NMI without IST stack": ("EXO023", [ist(cpu, NMI, 0)]),
        "#DB without IST stack": ("EXO023", [ist(cpu, DEBUG, 0)]),
        "NMI on the stack of other exceptions": ("EXO046", [ist(cpu, NMI, 1)]),
        "#GP open to INT n": ("EXO026", [(byte(cpu.idt + 16 * GENERAL_PROTECTION + 5), 0x60, 0x60)]),
        "RSP0 nowhere": ("EXO041", [in_tss(cpu, 4, 0xFFFF_FFFF_DEAD_0000)]),
        "RSP0 in the physical map": ("EXO047", [in_tss(cpu, 4, PHYSICAL_MAP + 0x60_0000)]),
        "RSP0 is an IST stack": ("EXO046", [in_tss(cpu, 4, ist1)]),
        "IST3 is 0": ("EXO042", [in_tss(cpu, 0x34, 0)]),
        "kernel rsp 0": ("EXO040", [(word(percpu), (1 << 64) - 1, 0)]),
        "user data not writable by SYSRET": ("EXO021", [(byte(cpu.gdt + 0x20 + 5), 0x02, 0)]),
        "kernel code not present": ("EXO020", [(byte(cpu.gdt + 0x08 + 5), 0x80, 0)]),
        "entry stub not executable": ("EXO003", [(entries(gdb, stub)[-1], 0, XD)]),
        "entry stub writable": ("EXO064", [(entries(gdb, stub)[-1], 0, WRITABLE)]),
        "data executable": ("EXO065", [(entries(gdb, data)[-1], XD, 0)]),
        "IDT in a user page": ("EXO025 EXO065", [(entry, 0, USER) for entry in entries(gdb, cpu.idt)]),
        "stack executable": ("EXO067", [(entries(gdb, gdb.integer(word(percpu)) - 8)[-1], XD, 0)]),
        "stack writable by programs": (
            "EXO040 EXO041 EXO068",
            [(entry, 0, USER) for entry in entries(gdb, gdb.integer(word(percpu)) - 8)],
        ),
        "entry stub writable in the physical map": (
            "EXO069",
            [(entries(gdb, PHYSICAL_MAP + stub - KERNEL_BASE)[-1], 0, WRITABLE)],
        ),
        "per-CPU block read-only": ("EXO044", [(entries(gdb, percpu)[-1], WRITABLE, 0)]),
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


@pytest.fixture(scope="module")
def sound_guest() -> Iterator[Guest]:
    with at_first_program(qemu=("-cpu", "max,vendor=GenuineIntel")) as guest:
        guest.gdb.run("set language c")
        yield guest


def test_each_flaw_that_is_planted_is_found_and_no_other(sound_guest: Guest) -> None:
    gdb = sound_guest.gdb
    [cpu] = read_cpu_truths(gdb)
    gdb.run("set language c")
    before = found(check(sound_guest))
    for name, (expected, changes) in plants(gdb, cpu).items():
        with ExitStack() as stack:
            for change in changes:
                stack.enter_context(changed(gdb, change))
            assert found(check(sound_guest)) - before == set(expected.split()), name
    assert found(check(sound_guest)) == before


def test_sysenter_that_leads_to_a_program_is_found(sound_guest: Guest) -> None:
    gdb = sound_guest.gdb
    gdb.run("exo-msr write sysenter_eip 0x401000")
    assert "EXO008" not in found(check(sound_guest))  # with a null selector SYSENTER raises #GP
    gdb.run("exo-msr write sysenter_cs 8")
    assert "EXO008" in found(check(sound_guest), "error")
    gdb.run("exo-msr write sysenter_cs 0")
    assert "EXO008" not in found(check(sound_guest))
