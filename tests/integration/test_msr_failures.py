"""QEMU killed, QMP closed, taken or silent: one sentence, and a GDB that goes on."""

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exogdb.launch.deadline import wait_until
from tests.harness.session import Guest, open_guest, private_directory
from tests.harness.truth import read_cpu_truths
from tests.integration.stops import attach_running, stop_at

COMMANDS = ("exo-msr", "exo-msr --via qmp", "exo-msr --via rdmsr", "exo-gs", "exo-gdt", "exo-idt", "exo-tss")


FREEZE_SECONDS = 10.0
SHORT_DEADLINE = "python from exogdb.target.qemu import qmp; qmp._DEADLINE_SECONDS = 1.0"


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


# Kills QEMU when the function `name` of the package's target/ is called for the time that `left` was set to.
KILLER = """
import os, sys
def kill_at_call(frame, event, _argument):
    global left
    if event == "call" and frame.f_code.co_name == name and "/exogdb/target/" in frame.f_code.co_filename:
        left -= 1
        if left == 0:
            os.kill(victim, 9)
            while open(f"/proc/{victim}/stat").read().rpartition(")")[2].split()[0] not in "ZX":
                pass
"""


@pytest.mark.parametrize(
    ("name", "time"), [("find_stub_state", 4), ("_require_ram", 9), ("find_qmp_addresses", 1)]
)
def test_qemu_killed_in_the_middle(name: str, time: int, tmp_path: Path) -> None:
    """While GDB unwinds, which it did not survive; with another thread selected; while QMP is looked for.

    By a function's name, and how often it was called: how long something is waited for must not move the moment.
    """
    (tmp_path / "killer.py").write_text(KILLER)
    with open_guest(smp=2, attach=False) as guest:
        attach_running(guest)
        gdb = guest.gdb
        stop_at(gdb, "syscall_dispatch")
        gdb.run(f"source {tmp_path / 'killer.py'}")
        gdb.run("exo-gs --all-cpus")
        gdb.run(f"python name, left, victim = {name!r}, {time}, {guest.qemu.process.pid}")
        gdb.run("python sys.setprofile(kill_at_call)")
        error = gdb.fails("exo-gs --all-cpus")
        assert is_one_sentence(error), error
        assert "the connection to QEMU broke" in error


def test_a_late_reply_is_waited_for(stopped: Guest) -> None:
    """GDB's two seconds are not enough: it takes a reply that comes later for the reply to another question."""
    gdb = stopped.gdb
    gdb.run("python from exogdb.commands import gs; read = gs.read_gs")
    gdb.run("python gs.read_gs = lambda *given: print('patience', gdb.parameter('remotetimeout')) or read(*given)")
    before = gdb.run("python print(gdb.parameter('remotetimeout'))")
    assert "patience 3600" in gdb.run("exo-gs")
    assert gdb.run("python print(gdb.parameter('remotetimeout'))") == before


def is_frozen(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_frozen_qemu_is_not_asked(stopped: Guest) -> None:
    """GDB would wait for its timeouts, then take every CPU for gone, and never find them again."""
    pid = stopped.qemu.process.pid
    commands = (
        *COMMANDS,
        "exo-msr write fmask 0",
        "exo-syscall frame",
        "exo-syscall break 101",
        "print $exo_cpl()",
    )
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: is_frozen(pid), FREEZE_SECONDS, "QEMU to be frozen")
        for command in commands:
            error = stopped.gdb.fails(command)
            assert is_one_sentence(error)
            assert f"`kill -CONT {pid}`" in error
    finally:
        os.kill(pid, signal.SIGCONT)
    (cpu,) = stopped.gdb.json("exo-msr")["cpus"]
    assert int(cpu["msrs"]["IA32_STAR"]["value"], 16) == read_cpu_truths(stopped.gdb)[0].star


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
        stopped.gdb.run(SHORT_DEADLINE)
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


def test_a_device_that_qemu_cannot_save_is_no_reason_to_crash_it() -> None:
    """`xen-save-devices-state` ends QEMU by a segmentation fault if there is an NVMe drive."""
    drive = ("-drive", "if=none,id=disk,file=null-co://,format=raw", "-device", "nvme,serial=1,drive=disk")
    with open_guest(attach=False, qemu=drive) as guest:
        attach_running(guest)
        stop_at(guest.gdb, "syscall_dispatch")
        (cpu,) = guest.gdb.json("exo-msr --via qmp")["cpus"]
        assert "nvme, and would crash" in cpu["msrs"]["IA32_STAR"]["unavailable"]
        (cpu,) = guest.gdb.json("exo-msr")["cpus"]
        assert cpu["msrs"]["IA32_STAR"]["source"] == "rdmsr"
        assert int(cpu["msrs"]["IA32_STAR"]["value"], 16) == read_cpu_truths(guest.gdb)[0].star


TCP = "tcp:127.0.0.1:0,server=on,wait=off"


def monitor_port(guest: Guest, label: str) -> str:
    """Where QEMU listens for `label`, which was left to the system to choose."""
    found = re.search(
        rf"^{label}: filename=disconnected:tcp:(\S+),server", guest.gdb.reply("monitor info chardev").err, re.M
    )
    assert found is not None
    return found[1]


def test_a_monitor_on_a_tcp_port_is_found_and_leaves_no_file() -> None:
    """No descriptor goes through TCP: QEMU writes into a private directory, which is gone afterwards."""
    with open_guest(attach=False, smp=2, qemu=("-qmp", TCP)) as guest, private_directory() as directory:
        attach_running(guest)
        gdb = guest.gdb
        stop_at(gdb, "syscall_dispatch")
        gdb.run(f"python import tempfile; tempfile.tempdir = {str(directory)!r}")
        truths = read_cpu_truths(gdb)
        with socket.socket(socket.AF_UNIX) as other:  # so that only the port is free
            other.connect(str(guest.qemu.qmp_socket))
            assert other.recv(4096)
            for cpu in gdb.json("exo-msr --all-cpus --via qmp")["cpus"]:
                assert cpu["msrs"]["IA32_STAR"]["value"] == hex(truths[cpu["cpu"]].star)
        port = monitor_port(guest, "compat_monitor1")
        gdb.run(f"set exo qmp-socket tcp:{port}")
        (cpu,) = gdb.json("exo-msr --via qmp")["cpus"]
        assert cpu["msrs"]["IA32_STAR"]["value"] == hex(truths[0].star)
        assert list(directory.iterdir()) == []
        gdb.run("set exo qmp-socket example.org:4444")
        assert "not on this machine" in gdb.fails("exo-msr --via qmp")


def test_a_file_of_qemus_whose_name_is_no_text_does_not_matter(tmp_path: Path) -> None:
    odd = f"socket,id=odd,path={tmp_path}/\udcfc,server=on,wait=off"
    with open_guest(qemu=("-chardev", odd)) as guest:
        (cpu,) = guest.gdb.json("exo-msr --via qmp star")["cpus"]
        assert cpu["msrs"]["IA32_STAR"]["source"] == "qmp"


def test_the_port_of_another_qemu_is_not_asked(stopped: Guest) -> None:
    with open_guest(stopped=True, qemu=("-qmp", TCP)) as other:
        stopped.gdb.run(f"set exo qmp-socket {monitor_port(other, 'compat_monitor1')}")
        (cpu,) = stopped.gdb.json("exo-msr --via qmp")["cpus"]
        assert "has no such client" in cpu["msrs"]["IA32_STAR"]["unavailable"]


def test_only_monitors_are_tried_and_a_human_one_is_told_apart() -> None:
    """A serial port that somebody would see us on is left alone; a label that says nothing is found by `-mon`."""
    with private_directory() as directory:
        free = ",server=on,wait=off"
        sockets = (
            *("-monitor", f"unix:{directory}/human{free}"),
            *("-chardev", f"socket,id=foo,path={directory}/foo{free}", "-mon", "foo,mode=control"),
            *("-serial", f"unix:{directory}/serial{free}"),
        )
        with open_guest(attach=False, qemu=sockets) as guest, socket.socket(socket.AF_UNIX) as other:
            attach_running(guest)
            stop_at(guest.gdb, "syscall_dispatch")
            other.connect(str(guest.qemu.qmp_socket))
            assert other.recv(4096)
            (cpu,) = guest.gdb.json("exo-msr --via qmp")["cpus"]
            assert cpu["msrs"]["IA32_STAR"]["value"] == hex(read_cpu_truths(guest.gdb)[0].star)
            with socket.socket(socket.AF_UNIX) as another:
                another.connect(f"{directory}/foo")
                assert another.recv(4096)
                (cpu,) = guest.gdb.json("exo-msr --via qmp")["cpus"]
                reason = cpu["msrs"]["IA32_STAR"]["unavailable"]
                assert "human: it does not greet as QMP" in reason
                assert "serial" not in reason


GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}
NOBODY = "no QMP monitor answered"
GOOD: dict[str, Any] = {"return": {}}


class OddMonitor:
    """The side of a monitor that answers what the test wants, command by command; several may come at once."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = ""

    def tell(self, answer: Any) -> Any:
        """Send `answer`; the next command, None at the end of the connection."""
        self._connection.sendall(json.dumps(answer).encode() + b"\n")
        while True:
            try:
                following, end = json.JSONDecoder().raw_decode(self._received)
            except ValueError:
                data = self._connection.recv(4096)
                if not data:
                    return None
                self._received += data.decode()
            else:
                self._received = self._received[end:]
                return following


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([GREETING, GOOD, {"return": {"status": "none"}}], f"{NOBODY}: .*: it closed the connection"),
        ([GREETING, GOOD, {"return": []}], "which is no object"),
    ],
)
def test_a_monitor_that_goes_away_or_talks_nonsense(stopped: Guest, answers: list[Any], reason: str) -> None:
    """After some answers the connection ends, as if QEMU's monitor had died: one sentence, no traceback."""
    gdb = stopped.gdb
    with private_directory() as directory, listen(directory / "odd.sock") as odd:
        gdb.run(f"set exo qmp-socket {directory / 'odd.sock'}")
        gdb.start("exo-msr --via qmp star --json")
        connection, _ = odd.accept()
        with connection:
            monitor = OddMonitor(connection)
            for answer in answers:
                monitor.tell(answer)
        reply = gdb.finish()
        assert reply.err == ""
        (cpu,) = json.loads(reply.out)["cpus"]
        assert re.search(reason, cpu["msrs"]["IA32_STAR"]["unavailable"])


def test_a_monitor_that_stops_answering(stopped: Guest) -> None:
    gdb = stopped.gdb
    with private_directory() as directory, listen(directory / "odd.sock") as odd:
        gdb.run(f"set exo qmp-socket {directory / 'odd.sock'}")
        gdb.run(SHORT_DEADLINE)
        gdb.start("exo-msr --via qmp star --json")
        connection, _ = odd.accept()
        with connection:
            monitor = OddMonitor(connection)
            assert monitor.tell(GREETING)
            assert monitor.tell(GOOD)
            reply = gdb.finish()
        assert "no answer within 1 seconds" in reply.out
        assert reply.err == ""


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
