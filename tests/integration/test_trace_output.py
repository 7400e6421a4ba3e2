"""A trace whose output cannot be written, and Ctrl-C at any moment: GDB and the guest are then as they were."""

import fcntl
import os
import random
import select
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from exogdb.launch.deadline import wait_until
from exogdb.launch.image import read_image
from exogdb.launch.logfilter import log_filter
from tests.harness.gdb import Gdb
from tests.harness.kernel import ROOT, Kernel
from tests.harness.session import Guest, open_guest
from tests.integration.stops import attach_running, said_by_exogdb, stop_at

ENGINES = ["log", "stops"]
MOMENTS = 9
LONGEST_SECONDS = 0.6
STUCK_POLLS = 20
SECONDS = 30.0
POLL, CLOCK_NANOSLEEP = "7", "230"  # their numbers on x86-64


@pytest.fixture(scope="module")
def busy(kernel: Kernel) -> Iterator[Guest]:
    """A stopped guest with two CPUs whose programs call all the time. Tests leave it stopped and as it was."""
    with open_guest(attach=False, smp=2, qemu=log_filter(read_image(kernel.elf))) as guest:
        attach_running(guest)
        yield guest


def check_nothing_left(guest: Guest, code: bytes) -> None:
    """No log, no breakpoint, no message of GDB's to come, and a guest that can be traced again."""
    wait_for_no_log(guest)
    assert guest.gdb.memory(guest.gdb.address("syscall_entry"), len(code)) == code
    assert guest.gdb.run("info breakpoints").startswith("No breakpoints")
    assert guest.gdb.run("python print(gdb.selected_thread().is_running())") == "False\n"
    assert "ended (as asked for): 2 entries" in guest.gdb.run("exo-syscall trace --count 2 --engine stops")


def wait_for_no_log(guest: Guest) -> None:
    """QEMU closes a log file some time after it has been told to use another one."""
    wait_until(lambda: not any("exogdb-trace" in path for path in guest.open_files()), SECONDS, "the log's end")


def has_come(moment: float, gdb: Gdb, typed: int) -> bool:
    return time.monotonic() >= moment and gdb.has_read(typed)


def read_code(guest: Guest) -> bytes:
    return guest.gdb.memory(guest.gdb.address("syscall_entry"), 64)


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_at_any_moment(busy: Guest, engine: str, tmp_path: Path) -> None:
    code = read_code(busy)
    moments = random.Random(engine)
    commands = (f"trace --output {tmp_path / 'out'}", "summary", f"record {tmp_path / 'record'}")
    for number in range(MOMENTS):
        moment = time.monotonic() + moments.uniform(0, LONGEST_SECONDS)
        typed = busy.gdb.start(f"exo-syscall {commands[number % len(commands)]} --engine {engine}")
        wait_until(partial(has_come, moment, busy.gdb, typed), SECONDS, "that moment")
        busy.gdb.interrupt()
        reply = busy.gdb.finish()
        assert "ended (Ctrl-C)" in reply.out or reply.err == "Quit\n", reply
        assert "warning" not in reply.out
    check_nothing_left(busy, code)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "command", ["trace --output /dev/full", "trace --json --output /dev/full", "record /dev/full"]
)
def test_a_full_disk_ends_the_trace_with_one_sentence(busy: Guest, engine: str, command: str) -> None:
    code = read_code(busy)
    reply = busy.gdb.reply(f"exo-syscall {command} --engine {engine}")
    assert said_by_exogdb(reply.err) == ["/dev/full cannot be written any more: No space left on device"]
    assert ("ended (/dev/full cannot be written" in reply.out) == ("--json" not in command)
    check_nothing_left(busy, code)


class Full:
    """Whether a FIFO holds something, and its writer waits until there is room: looked at again and again.

    The amount alone does not tell: it stays the same, too, while the writer is not run.
    """

    def __init__(self, fifo: tuple[Path, int], writer: Guest) -> None:
        (self._path, self._reader), self._writer = fifo, writer
        self._amount, self._polls = 0, 0

    def __call__(self) -> bool:
        answer = fcntl.ioctl(self._reader, termios.FIONREAD, bytes(4))
        amount = int.from_bytes(answer, sys.byteorder)
        self._polls = self._polls + 1 if amount == self._amount and waits_for_room(self._writer, self._path) else 0
        self._amount = amount
        return amount > 0 and self._polls >= STUCK_POLLS


def waits_for_room(guest: Guest, fifo: Path) -> bool:
    """Whether a thread of GDB waits until `fifo` can be written."""
    process = Path(f"/proc/{guest.gdb.pid}")
    calls = [(task / "syscall").read_text().split() for task in (process / "task").iterdir()]
    return any(waits_to_write(process, int(call[1], 16), fifo) for call in calls if call[0] == POLL)


def waits_to_write(process: Path, waiting: int, file: Path) -> bool:
    """Whether the `struct pollfd` at the address `waiting` is POLLOUT of `file`: GDB waits for more."""
    with (process / "mem").open("rb") as memory, suppress(OSError):
        memory.seek(waiting)
        descriptor, events = struct.unpack("ih", memory.read(6))
        return bool(events & select.POLLOUT) and (process / "fd" / str(descriptor)).readlink() == file
    return False


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """The smallest FIFO that there is, and its reading end."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, select.PIPE_BUF)
    yield path, reader
    with suppress(OSError):  # a test that has closed it
        os.close(reader)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reader_that_goes_away_ends_the_trace_with_one_sentence(
    busy: Guest, engine: str, fifo: tuple[Path, int]
) -> None:
    path, reader = fifo
    code = read_code(busy)
    busy.gdb.start(f"exo-syscall trace --output {path} --engine {engine}")
    wait_until(Full(fifo, busy), SECONDS, "a FIFO that is full")
    os.close(reader)
    assert said_by_exogdb(busy.gdb.finish().err) == [f"{path} cannot be written any more: Broken pipe"]
    check_nothing_left(busy, code)


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_gives_a_reader_up_that_takes_nothing(busy: Guest, engine: str, fifo: tuple[Path, int]) -> None:
    path, _ = fifo
    code = read_code(busy)
    busy.gdb.start(f"exo-syscall trace --output {path} --engine {engine}")
    wait_until(Full(fifo, busy), SECONDS, "a FIFO that is full")
    busy.gdb.interrupt()
    assert f"whoever reads {path} takes nothing" in busy.gdb.finish().err
    check_nothing_left(busy, code)


def test_ctrl_c_ends_the_wait_for_a_reader(busy: Guest, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    busy.gdb.start(f"exo-syscall record {path}")
    wait_until(lambda: sleeps(busy), SECONDS, "GDB waiting for a reader")
    busy.gdb.interrupt()
    assert busy.gdb.finish().err == f"{path} is a FIFO that nobody reads\n"


def sleeps(guest: Guest) -> bool:
    """Whether GDB is in the pause between two attempts to open a FIFO."""
    return Path(f"/proc/{guest.gdb.pid}/syscall").read_text().split()[0] == CLOCK_NANOSLEEP


# The second as in batch mode, where no prompt comes: the first command says it.
ATTACHING = ["target remote {}", "python gdb.execute('target remote {}'); gdb.execute('exo-msr star')"]


@pytest.mark.parametrize("attach", ATTACHING, ids=["prompt", "command"])
def test_gdb_killed_in_the_middle_leaves_no_file_and_a_log_that_the_next_one_ends(
    kernel: Kernel, attach: str
) -> None:
    with open_guest(attach=False, qemu=log_filter(read_image(kernel.elf))) as guest:
        attach_running(guest)
        guest.gdb.start("exo-syscall trace --engine log")
        guest.gdb.wait_output("ipc_send(")
        (fifo,) = (path for path in guest.open_files() if "exogdb-trace" in path)
        guest.gdb.close()
        directory = Path(fifo.removesuffix(" (deleted)")).parent
        assert "exogdb-trace" in directory.name
        assert not directory.exists()
        with Gdb([kernel.elf]) as another:
            another.run(f"source {ROOT / 'gdbinit.py'}")
            said = another.reply(attach.format(guest.qemu.gdb_socket)).err
            assert said.count("execution log was still on") == 1
            wait_for_no_log(guest)
            assert another.reply("exo-msr star").err == ""
            before = another.word("SYSCALL_COUNT")
            stop_at(another, "syscall_dispatch")
            assert another.word("SYSCALL_COUNT") >= before
