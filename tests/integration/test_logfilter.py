"""The log filter that the launcher computes from the file, against what the running guest does."""

from exogdb.launch.image import read_image
from exogdb.launch.logfilter import find_trace_points
from tests.harness.kernel import Kernel
from tests.integration.conftest import OpenGuest


def test_the_filter_has_the_entry_and_the_dispatchers_return(guest: OpenGuest, kernel: Kernel) -> None:
    gdb = guest(plugin=False).gdb
    points = find_trace_points(read_image(kernel.elf))
    assert points is not None
    assert points.entry == gdb.address("syscall_entry")
    assert points.handlers == {gdb.address("sys_exec")}
    gdb.run(f"hbreak *{gdb.address('syscall_dispatch'):#x}")
    gdb.run("continue")
    assert points.returns == {int.from_bytes(gdb.memory(gdb.integer("$rsp"), 8), "little")}
