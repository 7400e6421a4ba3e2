"""`exo-syscall check` on the sound kernel and on every kernel with a planted flaw, against what was planted."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from exogdb.abi.check import RULES
from exogdb.launch.elf import read_elf
from tests.harness.kernel import ROOT, Kernel, build_kernel
from tests.harness.linux import open_linux
from tests.harness.session import Guest, open_guest

# What the design itself leaves open: FMASK of IF alone, STAR without RPL 3.
OF_THE_DESIGN = {"EXO011", "EXO014", "EXO022"}
# No test of rcx, but an IST stack for #GP. No CSTAR, which no program can reach without a 32-bit code segment.
NOTES_OF_THE_DESIGN = {"EXO006", "EXO034"}
# The emulated CPU has no SMEP, SMAP, UMIP.
NOTES = NOTES_OF_THE_DESIGN | {"EXO060", "EXO061", "EXO066"}
# Variant, CPUs, and the one rule that its flaw breaks.
PLANTED = [
    ("fmask-without-if", 1, {"EXO010"}),
    ("no-sce", 1, {"EXO001"}),
    ("lstar-noncanonical", 1, {"EXO002"}),
    ("lstar-unmapped", 1, {"EXO003"}),
    ("lstar-user-page", 1, {"EXO004"}),
    ("star-off-by-one", 1, {"EXO021"}),
    ("no-swapgs-entry", 1, {"EXO030"}),
    ("no-swapgs-exit", 1, {"EXO030"}),
    ("misaligned-call", 1, {"EXO032"}),
    ("user-rsp-before-switch", 1, {"EXO031"}),
    ("shared-gs-block", 2, {"EXO045"}),
    ("lstar-differs", 2, {"EXO050"}),
]
# Kernels with more than one, each with every rule that it breaks beside the design's own.
SEVERAL = {"seed-literal": {"EXO012", "EXO033", "EXO035"}, "fmask-leaves-df-tf-ac": {"EXO012", "EXO013"}}


# A kernel at its first line of Rust: no LIDT, no LTR, none of the MSRs.
AT_FIRST_LINE = {"EXO001", "EXO005", "EXO010", "EXO020", "EXO021", "EXO024", "EXO028"}


def first_instruction(kernel: Kernel) -> int:
    """Where the first user program begins: the program `demo`, as `run=demo` says."""
    [demo] = [path for path in kernel.programs if path.stem == "demo"]
    return read_elf(demo).symbols["_start"]


@contextmanager
def at_first_program(variant: str = "", smp: int = 1, **options: Any) -> Iterator[Guest]:
    """Every CPU is set up, and the first user program stands at its first instruction."""
    with open_guest(variant=variant, smp=smp, stopped=True, **options) as guest:
        guest.gdb.run(f"hbreak *{first_instruction(guest.kernel):#x}")
        guest.gdb.run("continue")
        yield guest


def check(guest: Guest, options: str = "") -> dict[str, Any]:
    answer: dict[str, Any] = guest.gdb.json(f"exo-syscall check --fail-on never {options}")
    return answer


def found(answer: dict[str, Any], *severities: str) -> set[str]:
    return {
        rule["id"]
        for rule in answer["rules"]
        for finding in rule["findings"]
        if not severities or finding["severity"] in severities
    }


@pytest.mark.parametrize("smp", [1, 4])
def test_the_sound_kernel_has_nothing_above_a_warning(smp: int) -> None:
    with at_first_program(smp=smp) as guest:
        answer = check(guest)
        assert answer["errors"] == 0
        assert found(answer, "warning") == OF_THE_DESIGN
        assert found(answer, "note") == NOTES
        unchecked = {rule["id"] for rule in answer["rules"] if rule["status"] == "not checked"}
        assert unchecked == (set() if smp == 1 else {"EXO040", "EXO041"})


def test_the_sound_kernel_is_sound_while_every_cpu_works() -> None:
    with open_guest(smp=2) as guest:
        guest.gdb.run("detach")
        guest.qemu.wait_serial("receiver: 1024 messages")
        guest.gdb.run(f"target remote {guest.qemu.gdb_socket}")
        answer = check(guest)
        assert answer["errors"] == 0
        assert found(answer, "warning") == OF_THE_DESIGN


def test_protections_are_on_where_the_cpu_has_them() -> None:
    with at_first_program(qemu=("-cpu", "max")) as guest:
        answer = check(guest)
        assert answer["errors"] == 0
        # With SMAP on, an AC that the user carries in matters.
        assert found(answer) == OF_THE_DESIGN | NOTES_OF_THE_DESIGN | {"EXO013"}


# Variant, and what cannot be looked at on CPUs that are idle, or without debug info.
BUILDS = [
    ("today", {"EXO007", "EXO040", "EXO041"}),
    ("debug", {"EXO040", "EXO041"}),
    ("stripped", {"EXO033", "EXO040", "EXO041"}),
]


@pytest.mark.parametrize(("variant", "unseen"), BUILDS)
def test_other_builds_of_the_kernel_have_no_error(variant: str, unseen: set[str]) -> None:
    with at_first_program(variant, smp=4) as guest:
        answer = check(guest)
        assert answer["errors"] == 0
        expected = {"EXO022"} if variant == "today" else OF_THE_DESIGN
        assert found(answer, "warning") == expected
        unchecked = {rule["id"] for rule in answer["rules"] if rule["status"] == "not checked"}
        assert unchecked == unseen


@pytest.mark.parametrize(("variant", "smp", "planted"), PLANTED, ids=[variant for variant, _, _ in PLANTED])
def test_a_planted_flaw_is_the_only_error(variant: str, smp: int, planted: set[str]) -> None:
    with at_first_program(variant, smp) as guest:
        answer = check(guest)
        assert found(answer, "error") == planted
        assert found(answer, "warning") <= OF_THE_DESIGN
        # What comes before SYSRET is not known where LSTAR leads to no stub.
        assert NOTES - {"EXO034"} <= found(answer, "note") <= NOTES


@pytest.mark.parametrize(("cpu", "smp"), [("EPYC", 2), ("Skylake-Client", 1)])
def test_the_distributions_linux_has_nothing_above_a_note(cpu: str, smp: int) -> None:
    """On Intel it switches page tables in the stub: in user mode most of the kernel is not mapped. On AMD it calls
    what retrains the return predictor in front of the dispatcher.
    """
    with open_linux(smp, cpu) as (guest, truth):
        assert_linux_is_sound(check(guest))
        [alignment] = check(guest, "--rule EXO032")["rules"][0]["findings"]  # true of Linux, and of its dispatcher
        assert f"{truth.symbols['do_syscall_64']:#x}" in alignment["found"]
        guest.gdb.run("thbreak syscall")
        guest.gdb.run("continue")
        answer = check(guest)
        assert_linux_is_sound(answer)
        assert ("EXO006" in found(answer)) == (cpu == "Skylake-Client")  # Intel's CPUs do not use CSTAR
        [isolation] = [rule for rule in answer["rules"] if rule["id"] == "EXO007"]
        running = guest.gdb.integer("$_thread") - 1
        assert running not in {each["cpu"] for each in isolation["not_checked"]}


def assert_linux_is_sound(answer: dict[str, Any]) -> None:
    assert found(answer, "error", "warning") == set()
    unchecked = {rule["id"] for rule in answer["rules"] if rule["status"] == "not checked"}
    # It has no symbols here; what its newer versions test before SYSRET, they test in C; an idle CPU does not show
    # the user's page tables.
    assert unchecked - {"EXO007", "EXO034"} == {"EXO005", "EXO033", "EXO064", "EXO065"}


def test_flags_left_to_the_user_are_named() -> None:
    with at_first_program("fmask-leaves-df-tf-ac", qemu=("-cpu", "max")) as guest:
        answer = check(guest)
        assert found(answer, "error", "warning") == OF_THE_DESIGN - {"EXO014"} | SEVERAL["fmask-leaves-df-tf-ac"]
        assert found(answer, "error") == {"EXO012"}


def test_the_disagreement_in_the_design_is_the_showpiece() -> None:
    with at_first_program("seed-literal") as guest:
        answer = check(guest)
        assert found(answer, "error", "warning") == OF_THE_DESIGN | SEVERAL["seed-literal"]
        assert found(answer, "error") == {"EXO012", "EXO033"}  # no CLD either; nothing is cleared on the way out
        [rule] = [rule for rule in answer["rules"] if rule["id"] == "EXO033"]
        [finding] = rule["findings"]
        assert finding["severity"] == "error"
        assert "num is taken from rdi, but the number is in rax" in finding["found"]
        assert "arg1 is taken from rsi, but user rdi is in rdi" in finding["found"]
        assert "arg6 is taken from [rsp+0x8], but user r9 is in r9" in finding["found"]


def test_findings_name_the_value_that_the_kernel_wrote() -> None:
    with at_first_program("lstar-differs", 2) as guest:
        text = guest.gdb.reply("exo-syscall check --rule EXO050").out
        other, usual = (guest.gdb.address(name) for name in ("syscall_entry_other", "syscall_entry"))
        assert f"IA32_LSTAR = {other:#x} (syscall_entry_other), on CPU 0 it is {usual:#x} (syscall_entry)" in text
        assert "IA32_LSTAR, CPU 1\n" in text


def test_the_guest_does_not_change() -> None:
    with at_first_program() as guest:
        before = guest.gdb.run("info registers"), guest.gdb.reply("monitor info status")
        check(guest)
        assert (guest.gdb.run("info registers"), guest.gdb.reply("monitor info status")) == before


def test_without_qmp_the_report_says_that_rdmsr_was_executed() -> None:
    with at_first_program("fmask-without-if") as guest:
        assert check(guest)["msr_sources"] == ["gdb", "qmp"]
        guest.gdb.run("set exo qmp-socket /nonexistent")
        before = guest.gdb.run("info registers")
        answer = check(guest)
        assert answer["msr_sources"] == ["gdb", "rdmsr"]
        assert found(answer, "error") == {"EXO010"}
        # The monitor behind the stub tells what the CPU can do: none of these would be a mistake of the kernel.
        assert found(answer, "warning") <= OF_THE_DESIGN
        assert "RDMSR executed in the guest" in guest.gdb.run("exo-syscall check --fail-on never")
        assert guest.gdb.run("info registers") == before


def test_gdb_in_batch_mode_ends_with_a_status() -> None:
    kernel = build_kernel("fmask-without-if")
    with open_guest(variant="fmask-without-if", stopped=True, attach=False) as guest:
        script = [
            f"source {ROOT / 'gdbinit.py'}",
            f"target remote {guest.qemu.gdb_socket}",
            f"hbreak *{first_instruction(kernel):#x}",
            "continue",
            "exo-syscall check",
        ]
        commands = [word for line in script for word in ("-ex", line)]
        done = subprocess.run(
            ["gdb", "-nx", "-q", "-batch", *commands, str(kernel.elf)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        assert "error EXO010" in done.stdout


# Variant, the function to stop in, seconds until it is examined anyway (from GDB's start), exit status, rules with
# errors.
IN_CI = [
    ("", "syscall_dispatch", 30, 0, set[str]()),
    ("fmask-without-if", "syscall_dispatch", 30, 1, {"EXO010"}),
    ("no-sce", "syscall_dispatch", 8, 1, {"EXO001"}),  # never gets there
]


@pytest.mark.parametrize(("variant", "function", "seconds", "status", "errors"), IN_CI)
def test_the_example_for_ci_reports_and_ends_with_a_status(
    variant: str, function: str, seconds: int, status: int, errors: set[str], tmp_path: Path
) -> None:
    done = run_example(tmp_path, variant, function, seconds)
    assert done.returncode == status, done.stdout
    report = json.loads((tmp_path / "check.json").read_text())
    assert found(report, "error") == errors
    assert all(f"error {name}" in done.stdout for name in errors)
    assert f"{len(errors)} error" in done.stdout


def test_the_example_for_ci_fails_if_there_is_nothing_to_examine(tmp_path: Path) -> None:
    done = run_example(tmp_path, "", "no_such_function", 30)
    assert done.returncode == 1
    assert "no_such_function" in done.stdout
    assert not (tmp_path / "check.json").exists()


def run_example(cwd: Path, variant: str, function: str, seconds: int) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [ROOT / "docs/examples/check-kernel.sh", build_kernel(variant).elf, function],
        cwd=cwd,
        env={**os.environ, "CHECK_SECONDS": str(seconds)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_rule_that_cannot_be_checked_fails_only_if_that_is_asked_for() -> None:
    with at_first_program("stripped") as guest:
        assert "1 not checked" in guest.gdb.run("exo-syscall check")
        assert "1 not checked" in guest.gdb.fails("exo-syscall check --strict")
        guest.gdb.run("exo-syscall check --strict --ignore EXO033")


def test_cpus_that_the_kernel_has_not_started_are_left_out() -> None:
    with open_guest(stopped=True, smp=2) as guest:
        assert guest.gdb.fails("exo-syscall check").startswith("no CPU is in long mode")
        guest.gdb.run("hbreak kernel_main")
        guest.gdb.run("continue")
        answer = check(guest)
        assert answer["cpus_left_out"] == [1]
        assert {each["cpu"] for rule in answer["rules"] for each in rule["findings"]} <= {0, None}
        assert found(answer, "error") == AT_FIRST_LINE, "nothing is read out of tables that are not there yet"
        assert guest.gdb.fails("exo-idt") == (
            "CPU 0 has no IDT: IDTR has base 0 and limit 0xffff, as before any LIDT"
        )
        assert "CPU 1 is not in long mode, and left out." in guest.gdb.run("exo-syscall check --fail-on never")


def test_without_a_guest_there_is_the_catalogue_and_one_sentence() -> None:
    with open_guest(attach=False) as guest:
        assert [rule["id"] for rule in guest.gdb.json("exo-syscall check --list")["rules"]] == [
            r.id for r in RULES
        ]
        assert guest.gdb.fails("exo-syscall check").startswith("no guest is connected")
        assert guest.gdb.fails("exo-syscall check --rule EXO999") == (
            "there is no rule 'EXO999': `exo-syscall check --list` names them"
        )
        assert "nothing is left" in guest.gdb.fails("exo-syscall check --rule EXO001 --ignore exo001")
        assert len(guest.gdb.json("exo-syscall check --list --rule EXO001,exo001")["rules"]) == 1
        assert "EXO050" in guest.gdb.run("complete exo-syscall check --rule EXO05")
        assert "Usage: exo-syscall check" in guest.gdb.run("help exo-syscall check")
