"""`exogdb run`: QEMU and GDB start together, work together and end together."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from exogdb.launch.deadline import wait_until
from exogdb.launch.elf import read_elf
from tests.harness.kernel import ROOT, Kernel, build_kernel
from tests.harness.terminal import Terminal

EXOGDB = (sys.executable, "-m", "exogdb")


def run(*arguments: str | Path, temporary: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """`exogdb` with no terminal on its standard input."""
    return subprocess.run(
        [*EXOGDB, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | ({"TMPDIR": str(temporary)} if temporary is not None else {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def gdb_of(launcher: int) -> int:
    """The process of the GDB that a launcher has started."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return next(int(child) for child in children if b"gdb" in command_line(Path(f"/proc/{child}/cmdline"))[:4])


def directory_of(output: str) -> Path:
    found = re.search(r"serial\.log are in (\S+)", output)
    assert found, output
    return Path(found[1])


def test_the_guest_is_at_its_first_system_call_and_everything_ends(kernel: Kernel) -> None:
    done = run("run", kernel.elf, "--ex", "info symbol $pc")
    assert done.returncode == 0, done.stdout
    assert "guest: exo-os: 1 CPU, 255 MiB, run=demo\n" in done.stdout
    shown = done.stdout.partition("(gdb) info symbol $pc\n")[2]
    assert shown.startswith("syscall_entry in section")
    assert not directory_of(done.stdout).exists()
    assert not qemu_runs(directory_of(done.stdout))


def test_cpus_and_arguments_for_qemu_are_passed_on(kernel: Kernel) -> None:
    done = run("run", kernel.elf, "--smp", "2", "--ex", "info threads", "--", "-m", "128M")
    assert done.returncode == 0, done.stdout
    assert "guest: exo-os: 2 CPUs, 127 MiB" in done.stdout
    assert "Thread 1.2" in done.stdout


def test_no_locale_a_path_beyond_ascii_and_no_standard_input(kernel: Kernel, tmp_path: Path) -> None:
    copied = tmp_path / "ü b" / "kernel.elf"
    copied.parent.mkdir()
    shutil.copy(kernel.elf, copied)
    command = [*EXOGDB, "run", str(copied), "--ex", "exo-syscall break getpid", "--ex", "continue"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *map(str, command)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"System call 4 getpid() by process" in done.stdout


def test_a_command_that_fails_is_the_end_and_the_status(kernel: Kernel) -> None:
    done = run("run", kernel.elf, "--ex", "frobnicate", "--ex", "echo went on")
    assert done.returncode != 0
    assert 'Undefined command: "frobnicate"' in done.stdout
    assert "went on" not in done.stdout
    assert not qemu_runs(directory_of(done.stdout))


def test_a_guest_that_makes_no_system_call_ends_with_a_reason() -> None:
    flawed = build_kernel("no-sce")
    done = run("run", flawed.elf, "--seconds", "5")
    assert done.returncode == 1
    assert "GDB was not done after 5 seconds: the guest made no system call" in done.stdout
    assert "ended with status 134" in done.stdout
    assert not qemu_runs(directory_of(done.stdout))


def test_a_refused_qemu_option_is_reported_in_qemus_words(kernel: Kernel) -> None:
    done = run("run", kernel.elf, "--", "-machine", "toaster")
    assert done.returncode == 1
    assert "unsupported machine type" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_target_that_is_not_there_is_named_in_one_sentence(kernel: Kernel) -> None:
    done = run("run", kernel.elf, "--attach", "/nowhere/gdb.sock")
    assert done.returncode == 1
    assert done.stdout.startswith("exogdb: there is no /nowhere/gdb.sock: ")
    assert done.stdout.count("\n") == 1


def test_a_missing_program_is_named(kernel: Kernel) -> None:
    assert "exogdb: no-gdb is not installed" in run("run", kernel.elf, "--gdb", "no-gdb").stdout
    assert "exogdb: no-qemu is not installed" in run("run", kernel.elf, "--qemu", "no-qemu").stdout


def test_a_user_gets_the_prompt_and_quitting_ends_qemu(kernel: Kernel) -> None:
    with Terminal([*EXOGDB, "run", kernel.elf], ROOT) as terminal:
        directory = directory_of(terminal.wait_for("serial.log are in ") + terminal.wait_for("\n"))
        terminal.wait_for("(gdb) ")
        terminal.type("set confirm off")
        terminal.wait_for("(gdb) ")
        terminal.type("info symbol $pc")
        assert "syscall_entry in section" in terminal.wait_for("(gdb) ")
        terminal.type("quit")
        assert terminal.wait_exit() == 0
    assert not qemu_runs(directory)
    assert not directory.exists()


def test_a_triple_fault_while_booting_leaves_a_gdb_that_can_be_used(kernel: Kernel, tmp_path: Path) -> None:
    with Terminal([*EXOGDB, "run", break_boot(kernel.elf, tmp_path / "broken.elf")], ROOT) as terminal:
        terminal.wait_for("a triple fault resets, too")
        terminal.wait_for("The guest did not get to its first system call")
        terminal.wait_for("(gdb) ")
        terminal.type("set confirm off")
        terminal.wait_for("(gdb) ")
        terminal.type("info symbol $pc")
        assert "pvh_start in section" in terminal.wait_for("(gdb) ")
        terminal.type("exo-syscall next")
        assert "the kernel has not set a system-call entry yet" in terminal.wait_for("(gdb) ")
        terminal.type("info symbol syscall_entry")
        assert "syscall_entry in section .text" in terminal.wait_for("(gdb) ")
        terminal.type("quit")
        assert "Traceback" not in terminal.output
        terminal.wait_exit()


# Page faults find an empty IDT: a double fault that finds it, too, is the third.
TRIPLE_FAULT = (
    "python import json; base = int(json.loads(gdb.execute('exo-idt --json', to_string=True))['base'], 16)",
    "python gdb.selected_inferior().write_memory(base, bytes(4096))",
    "set var $rip = 0x1234",
)


@pytest.mark.parametrize("engine", ["log", "stops"])
def test_a_triple_fault_can_be_looked_at(kernel: Kernel, engine: str) -> None:
    lines = (
        *TRIPLE_FAULT,
        f"exo-syscall trace --engine {engine}",
        "info registers rip",
        "exo-gs",
        "exo-msr read 0x10",
        "exo-syscall next",
    )
    done = run("run", kernel.elf, "--smp", "2", *(word for line in lines for word in ("--ex", line)))
    assert "ended (the guest shut down or reset): 0 entries" in done.stdout
    assert re.search(r"^rip +0x1234 ", done.stdout, re.MULTILINE)
    assert "entered without swapgs" in done.stdout
    refusal = "the guest shut down or reset, and cannot go on: quit, and start it again"
    assert re.search(rf"unavailable +- +{refusal}$", done.stdout, re.MULTILINE)
    assert f"\n{refusal}\n" in done.stdout
    assert done.returncode == 1


def break_boot(elf: Path, broken: Path) -> Path:
    """A kernel whose first instruction is UD2, when there is no table of handlers yet."""
    start = read_elf(elf).symbols["pvh_start"]
    (segment,) = (each for each in read_elf(elf).segments if 0 <= start - each.address < each.file_size)
    data = bytearray(elf.read_bytes())
    at = segment.offset + start - segment.address
    data[at : at + 2] = b"\x0f\x0b"
    broken.write_bytes(data)
    return broken


def test_ending_the_launcher_ends_both(kernel: Kernel) -> None:
    with Terminal([*EXOGDB, "run", kernel.elf], ROOT) as terminal:
        directory = directory_of(terminal.wait_for("serial.log are in ") + terminal.wait_for("\n"))
        terminal.wait_for("(gdb) ")
        terminal.process.terminate()
        assert terminal.wait_exit() == 128 + 15
    assert not qemu_runs(directory)
    assert not directory.exists()


def test_a_killed_gdb_leaves_neither_qemu_nor_files_nor_a_raw_terminal(kernel: Kernel) -> None:
    with Terminal([*EXOGDB, "run", kernel.elf], ROOT) as terminal:
        before = terminal.settings()
        directory = directory_of(terminal.wait_for("serial.log are in ") + terminal.wait_for("\n"))
        terminal.wait_for("(gdb) ")
        assert terminal.settings() != before, "GDB edits its line without echo"
        os.kill(gdb_of(terminal.process.pid), signal.SIGKILL)
        terminal.wait_for("GDB was ended by SIGKILL.")
        assert terminal.wait_exit() == 128 + 9
        assert terminal.settings() == before
    assert not qemu_runs(directory)
    assert not directory.exists()


def test_a_killed_launcher_leaves_neither_qemu_nor_gdb(kernel: Kernel) -> None:
    with Terminal([*EXOGDB, "run", kernel.elf], ROOT) as terminal:
        directory = directory_of(terminal.wait_for("serial.log are in ") + terminal.wait_for("\n"))
        terminal.wait_for("(gdb) ")
        gdb = gdb_of(terminal.process.pid)
        terminal.process.kill()
        wait_until(lambda: not qemu_runs(directory), 10.0, "QEMU's end")
        wait_until(lambda: not command_line(Path(f"/proc/{gdb}/cmdline")), 10.0, "GDB's end")
        shutil.rmtree(directory)


def test_ctrl_c_while_booting_stops_the_guest_where_it_is() -> None:
    silent = build_kernel("no-sce")  # it boots, and never makes a call
    with Terminal([*EXOGDB, "run", silent.elf], ROOT) as terminal:
        terminal.wait_for("guest: exo-os:")
        terminal.press("\x03")
        terminal.wait_for("The guest was stopped before its first system call")
        terminal.wait_for("(gdb) ")


def test_any_directory_for_temporary_files_will_do(kernel: Kernel, tmp_path: Path) -> None:
    place = tmp_path / ("a blank, a comma, and so long that no socket's name has room for it: " + "o" * 80)
    place.mkdir()
    done = run("run", kernel.elf, "--ex", "exo-syscall trace --count 2", temporary=place)
    assert done.returncode == 0, done.stdout
    assert "ended (as asked for)" in done.stdout, done.stdout
    assert list(place.iterdir()) == []


def test_attaching_leaves_the_guest_to_its_owner(kernel: Kernel) -> None:
    with Terminal([*EXOGDB, "run", kernel.elf], ROOT) as owner:
        directory = directory_of(owner.wait_for("serial.log are in ") + owner.wait_for("\n"))
        owner.wait_for("(gdb) ")
        owner.type("disconnect")
        owner.wait_for("(gdb) ")
        done = run("run", kernel.elf, "--attach", directory / "gdb.sock", "--ex", "info symbol $pc")
        assert done.returncode == 0, done.stdout
        assert "syscall_entry in section" in done.stdout
        assert qemu_runs(directory)


def qemu_runs(directory: Path) -> bool:
    """Whether a QEMU has its sockets in `directory`."""
    return any(
        b"qemu-system" in line.split(b"\0")[0] and bytes(directory) in line
        for line in map(command_line, Path("/proc").glob("[0-9]*/cmdline"))
    )


def command_line(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it has ended meanwhile
