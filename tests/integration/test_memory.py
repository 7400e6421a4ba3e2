"""exogdb/target/memory.py: each CPU's memory as that CPU sees it, in every GDB."""

from tests.harness.session import Guest, open_guest
from tests.integration.stops import attach_running, stop_at

CPUS = 3
READ = (
    "from exogdb.target.cpus import all_cpus; from exogdb.target.memory import VirtualMemory; "
    "memory = [VirtualMemory(cpu) for cpu in all_cpus()]"
)


def find_user_stack(guest: Guest) -> tuple[int, int] | None:
    """(thread, user rsp) of a CPU other than the first, in a system call of a process that the first is not in."""
    gdb = guest.gdb
    selected = gdb.integer("$_thread")
    if selected == 1:
        return None
    user_rsp, own = gdb.integer("$rsp"), gdb.integer("$cr3")
    gdb.run("thread 1")
    other = gdb.integer("$cr3")
    gdb.run(f"thread {selected}")
    return (selected, user_rsp) if own != other else None


def test_user_memory_is_that_of_the_cpu_that_was_asked_for() -> None:
    with open_guest(smp=CPUS, attach=False) as guest:
        attach_running(guest)
        gdb = guest.gdb
        found = None
        while found is None:
            stop_at(gdb, "syscall_entry")  # rsp is still the user's
            found = find_user_stack(guest)
        thread, rsp = found
        truth = gdb.memory(rsp, 64)
        gdb.run(f"python {READ}")
        for selected in (1, thread):
            gdb.run(f"thread {selected}")
            taken = gdb.run(f"python print(memory[{thread - 1}].read({rsp:#x}, 64).hex())").strip()
            assert taken == truth.hex(), f"with thread {selected} selected"
        gdb.run("thread 1")
        gdb.run(f"python memory[{thread - 1}].write({rsp - 64:#x}, bytes(range(16)))")
        gdb.run(f"thread {thread}")
        assert gdb.memory(rsp - 64, 16) == bytes(range(16))
