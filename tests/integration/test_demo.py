"""`make demo`: the main job, as somebody sees it who has just cloned the repository."""

import os
import re
import subprocess

import pytest

from exogdb.launch.elf import Segment, read_elf
from tests.harness.kernel import ROOT, Kernel
from tests.harness.terminal import Terminal

MSRS = ("EFER", "STAR", "LSTAR", "CSTAR", "FMASK", "FS_BASE", "GS_BASE", "KERNEL_GS_BASE")


@pytest.fixture(scope="module")
def shown(kernel: Kernel) -> str:
    """What `make demo` prints without a terminal; it must end with status 0."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "--no-print-directory", "demo"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def section(shown: str, command: str) -> str:
    """What was printed from `command` up to the next one."""
    return shown.partition(f"(gdb) {command}\n")[2].partition("(gdb) ")[0]


def test_it_stops_at_101_in_sys_ipc_send(shown: str) -> None:
    stop = section(shown, "continue")
    assert "101" in stop
    assert "ipc_send" in stop
    assert "in sys_ipc_send" in section(shown, "bt") or "sys_ipc_send (" in section(shown, "bt")


def test_all_eight_msrs_have_a_value_and_a_source(shown: str) -> None:
    rows = re.findall(r"^(\w+) +0x[0-9a-f]{16}  (gdb|qmp) ", section(shown, "exo-msr"), re.MULTILINE)
    assert tuple(name for name, _ in rows) == MSRS


def test_both_gs_bases_are_named(shown: str) -> None:
    bases = section(shown, "exo-gs")
    assert re.search(r"active +GS_BASE +0x[0-9a-f]{16}  the kernel's", bases)
    assert re.search(r"waiting +KERNEL_GS_BASE +0x[0-9a-f]{16}  the user's", bases)


def test_the_saved_user_rip_lies_in_the_sending_program(shown: str, kernel: Kernel) -> None:
    frame = section(shown, "exo-syscall frame")
    found = re.search(r"\brip\b.*?0x([0-9a-f]+)", frame)
    assert found, frame
    rip = int(found[1], 16)
    programs = [path.stem for path in kernel.programs if any(rip in code(one) for one in read_elf(path).segments)]
    # Every program is linked at an address of its own, so the address tells which one it is.
    assert len(programs) == 1
    assert f"{programs[0]}::program_main" in section(shown, "bt")


def code(segment: Segment) -> range:
    return range(segment.address, segment.address + segment.size)


def test_on_a_terminal_it_ends_at_the_prompt_and_says_what_to_try(kernel: Kernel) -> None:
    with Terminal(["make", "--no-print-directory", "demo"], ROOT) as terminal:
        terminal.wait_for("Try next:")
        assert "exo-syscall" in terminal.wait_for("(gdb) ")
        terminal.type("set confirm off")
        terminal.wait_for("(gdb) ")
        terminal.type("exo-gs")
        assert "the kernel's" in terminal.wait_for("(gdb) ")
        terminal.type("quit")
        assert terminal.wait_exit() == 0
