"""exogdb/target/path.py: LSTAR's target, analysed on the running kernel and compared with its symbols."""

from collections.abc import Callable

from tests.harness.linux import open_linux
from tests.harness.session import Guest

READ = "from exogdb.target.path import read_entry_path; from exogdb.target.cpus import selected_cpu"
SHOW = (
    "p = read_entry_path(selected_cpu()); print(hex(p.entry), hex(p.dispatcher.address), p.frame.size, p.doubts)"
)


def _show_path(guest: Guest) -> list[str]:
    guest.gdb.run(f"python {READ}")
    return guest.gdb.run(f"python {SHOW}").split(maxsplit=3)


def test_the_reference_kernel(guest: Callable[..., Guest]) -> None:
    one = guest(append="run=demo", stopped=True)
    one.gdb.run("tbreak syscall_entry")
    one.gdb.run("continue")  # LSTAR is written by then
    entry, dispatcher, size, doubts = _show_path(one)
    symbols = [
        one.gdb.run(f"with language c -- print/x (long)&{name}") for name in ("syscall_entry", "syscall_dispatch")
    ]
    assert [text.split()[2] for text in symbols] == [entry, dispatcher]
    assert (int(size), doubts.strip()) == (64, "()")


def test_a_kernel_that_nobody_here_wrote() -> None:
    with open_linux(smp=1) as (one, truth):
        entry, dispatcher, size, doubts = _show_path(one)
        assert int(entry, 16) == truth.symbols["entry_SYSCALL_64"]
        assert int(dispatcher, 16) == truth.symbols["do_syscall_64"]
        assert (int(size), doubts.strip()) == (168, "()")  # sizeof(struct pt_regs)
