"""QEMU killed, QMP closed, taken or silent: one sentence, and a GDB that goes on."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.session import Guest, open_guest, private_directory
from tests.harness.truth import read_cpu_truths
from tests.integration.stops import attach_running, stop_at

COMMANDS = ("exo-msr", "exo-msr --via qmp", "exo-msr --via rdmsr", "exo-gs", "exo-gdt", "exo-idt", "exo-tss")


@pytest.fixture
def stopped() -> Iterator[Guest]:
    """One CPU, stopped in the dispatcher."""
    with open_guest(attach=False) as guest:
        attach_running(guest)
        stop_at(guest.gdb, "syscall_dispatch")
        yield guest


def is_one_sentence(text: str) -> bool:
    return bool(text) and "\n" not in text and "Traceback" not in text and "Python Exception" not in text


@pytest.mark.parametrize("command", ["exo-msr --via qmp", "exo-msr --via rdmsr", "exo-gs", "exo-tss"])
def test_qemu_killed(stopped: Guest, command: str) -> None:
    stopped.qemu.kill()
    error = stopped.gdb.fails(command)
    assert is_one_sentence(error), error
    assert stopped.gdb.run("print 6 * 7").split()[-1] == "42"
    again = stopped.gdb.fails(command)
    assert "no guest is connected" in again


def test_qemu_killed_under_a_function(stopped: Guest) -> None:
    stopped.qemu.kill()
    for function in ("$exo_msr(0xc0000082)", "$exo_cpl()", '$exo_gs(b"kernel")'):
        assert is_one_sentence(stopped.gdb.fails(f"print {function}"))


def test_a_qmp_socket_that_somebody_else_holds(stopped: Guest) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(stopped.qemu.qmp_socket))
        assert other.recv(4096)
        (cpu,) = stopped.gdb.json("exo-msr --via qmp")["cpus"]
        assert "no free QMP socket" in cpu["msrs"]["IA32_STAR"]["unavailable"]
        (cpu,) = stopped.gdb.json("exo-msr")["cpus"]
        assert cpu["msrs"]["IA32_STAR"]["source"] == "rdmsr"
        assert int(cpu["msrs"]["IA32_STAR"]["value"], 16) == read_cpu_truths(stopped.gdb)[0].star


def listen(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server


def test_a_socket_that_never_greets(stopped: Guest) -> None:
    with private_directory() as directory, listen(directory / "silent.sock"):
        stopped.gdb.run(f"set exo qmp-socket {directory / 'silent.sock'}")
        (cpu,) = stopped.gdb.json("exo-msr --via qmp")["cpus"]
        assert "no QMP monitor answered" in cpu["msrs"]["IA32_STAR"]["unavailable"]


def test_ctrl_c_ends_the_wait_for_a_monitor_that_says_nothing(stopped: Guest) -> None:
    gdb = stopped.gdb
    with private_directory() as directory, listen(directory / "silent.sock") as silent:
        gdb.run(f"set exo qmp-socket {directory / 'silent.sock'}")
        gdb.start("exo-msr --via qmp")
        connection, _ = silent.accept()
        with connection:
            gdb.interrupt()
            assert "Quit" in gdb.finish().err
            assert connection.recv(1) == b""  # closed by the client
    assert gdb.reply("python import gc; gc.collect()").err == ""


def test_a_socket_that_hangs_up(stopped: Guest) -> None:
    with private_directory() as directory:
        with listen(directory / "gone.sock"):
            pass
        stopped.gdb.run(f"set exo qmp-socket {directory / 'gone.sock'}")
        (cpu,) = stopped.gdb.json("exo-msr --via qmp")["cpus"]
        assert "no QMP monitor answered" in cpu["msrs"]["IA32_STAR"]["unavailable"]


def test_the_guest_runs(stopped: Guest) -> None:
    """While the guest runs nothing can be read; the sentence says how to stop it."""
    gdb = stopped.gdb
    gdb.run("delete")
    gdb.reply("continue &")
    for command in COMMANDS:
        assert "stop it with Ctrl-C" in gdb.fails(command)
    gdb.reply("interrupt")


def test_no_target() -> None:
    with open_guest(attach=False) as guest:
        for command in COMMANDS:
            error = guest.gdb.fails(command)
            assert is_one_sentence(error)
            assert "no guest is connected" in error


def test_ctrl_c_while_qmp_is_asked(stopped: Guest) -> None:
    gdb = stopped.gdb
    for _ in range(10):
        gdb.start('python [gdb.execute("exo-msr --via qmp") for _ in range(400)]')
        gdb.wait_output("qmp")
        gdb.interrupt()
        assert "KeyboardInterrupt: Quit" in gdb.finish().err
        # What was left half done would complain when garbage is collected.
        assert gdb.reply("python import gc; gc.collect()").err == ""
        (cpu,) = gdb.json("exo-msr --via qmp")["cpus"]
        assert int(cpu["msrs"]["IA32_STAR"]["value"], 16) == read_cpu_truths(gdb)[0].star
