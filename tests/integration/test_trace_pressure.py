"""A reader that falls behind makes the guest wait; it does not make the trace lose anything."""

import os
import re
from pathlib import Path

from exogdb.launch.deadline import wait_until
from exogdb.launch.image import read_image
from exogdb.launch.logfilter import log_filter
from tests.harness.kernel import Kernel
from tests.harness.session import Guest, open_guest

WRITE = "1"  # its number on x86-64
STUCK_POLLS = 20
SECONDS = 60.0


class Stuck:
    """Whether a thread of QEMU has been seen in `write` so often in a row that it must be waiting there."""

    def __init__(self, guest: Guest) -> None:
        self._tasks = Path(f"/proc/{guest.qemu.process.pid}/task")
        self._polls = 0

    def __call__(self) -> bool:
        calls = [(task / "syscall").read_text().split()[0] for task in self._tasks.iterdir()]
        self._polls = self._polls + 1 if WRITE in calls else 0
        return self._polls >= STUCK_POLLS


def read_to_the_end(descriptor: int) -> bytes:
    """Everything, until the writer closes."""
    os.set_blocking(descriptor, True)
    pieces = []
    while piece := os.read(descriptor, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def test_a_reader_that_falls_behind_slows_the_guest_and_loses_nothing(kernel: Kernel, tmp_path: Path) -> None:
    output = tmp_path / "slow"
    os.mkfifo(output)
    options = log_filter(read_image(kernel.elf))
    with open_guest("run=spin", attach=False, qemu=options) as guest:
        guest.qemu.wait_serial("spin:")
        guest.gdb.reply(f"target remote {guest.qemu.gdb_socket}")
        descriptor = os.open(output, os.O_RDONLY | os.O_NONBLOCK)
        try:
            guest.gdb.start(f"exo-syscall trace --for 1 --engine log --output {output}")
            wait_until(Stuck(guest), SECONDS, "QEMU waiting for its reader")
            text = read_to_the_end(descriptor).decode()
        finally:
            os.close(descriptor)
        answer = guest.gdb.finish(SECONDS).out
    ended = re.search(
        r"([\d,]+) entries and [\d,]+ returns seen in .* s; the kernel counted [\d,]+$", answer.strip()
    )
    assert ended, answer
    assert sum(" getpid(" in line or " ipc_send(" in line for line in text.splitlines()) >= int(
        ended[1].replace(",", "")
    )
