"""The list is the kernel's own table, and its plan needs no stop of the guest."""

import os
import shutil
from pathlib import Path

from tests.harness.kernel import build_kernel
from tests.integration.conftest import OpenGuest

TABLE = {
    0: ("exit", "process"), 1: ("fork", "process"), 2: ("exec", "process"), 3: ("wait", "process"),
    4: ("getpid", "process"), 100: ("ipc_create", "ipc"), 101: ("ipc_send", "ipc"), 102: ("ipc_recv", "ipc"),
    103: ("ipc_close", "ipc"), 200: ("mmap", "memory"), 201: ("munmap", "memory"), 202: ("mprotect", "memory"),
    300: ("open", "file"), 301: ("close", "file"), 302: ("read", "file"), 303: ("write", "file"),
}  # fmt: skip


def test_numbers_names_handlers_groups_and_plan(guest: OpenGuest) -> None:
    gdb = guest("run=demo", stopped=True).gdb
    gdb.run("tbreak syscall_entry")
    gdb.run("continue")  # before its first call a kernel may not have written LSTAR yet, and there is no plan
    rows = gdb.json("exo-syscall list")["syscalls"]
    assert {row["number"]: (row["name"], row["group"]) for row in rows} == TABLE
    assert all(row["handler"] == f"sys_{row['name']}" for row in rows)
    assert all(row["constant"] == f"SYS_{row['name'].upper()}" for row in rows)
    for row in rows:
        assert row["plan"]["number"] == row["number"]
        assert row["plan"]["cost"] != "one stop per system call", row


def test_a_choice_shortens_the_list_and_breakpoints_are_named(guest: OpenGuest) -> None:
    gdb = guest("run=demo").gdb
    gdb.run("exo-syscall break ipc_send,wait")
    rows = gdb.json("exo-syscall list %ipc")["syscalls"]
    assert [row["number"] for row in rows] == [100, 101, 102, 103]
    assert [row["breakpoints"] for row in rows] == [[], [1], [], []]


def test_a_profile_adds_groups(guest: OpenGuest, tmp_path: Path) -> None:
    gdb = guest("run=demo", stopped=True).gdb
    profile = tmp_path / "profile.toml"
    profile.write_text('version = 1\n[groups]\nnet = "open,close,%ipc,!ipc_recv"\n')
    gdb.run(f"set exo profile {profile}")
    rows = gdb.json("exo-syscall list %net")["syscalls"]
    assert [row["number"] for row in rows] == [100, 101, 103, 300, 301]
    assert "Breakpoint 1 on %net" in gdb.run("exo-syscall break %net")
    assert "%net" in gdb.run("complete exo-syscall list %n")
    profile.unlink()
    assert "No such file" in gdb.fails("exo-syscall list %net")


def test_without_a_guest_there_are_numbers_and_no_places(guest: OpenGuest) -> None:
    gdb = guest("run=demo", attach=False).gdb
    rows = gdb.json("exo-syscall list")["syscalls"]
    assert {row["number"]: (row["name"], row["group"]) for row in rows} == TABLE
    assert all("unavailable" in row["plan"] for row in rows)
    assert "Places unavailable (" in gdb.run("exo-syscall list")


def test_a_table_that_is_named_later_counts_from_then_on(guest: OpenGuest, tmp_path: Path) -> None:
    """The plan of a list or a breakpoint without a table is kept; that there was none is not."""
    gdb = guest("run=demo", variant="stripped").gdb
    assert "no table of system-call numbers" in gdb.fails("exo-syscall list")
    gdb.run("exo-syscall break 101")
    table = tmp_path / "numbers.rs"
    table.write_text("const SYS_GETPID: u64 = 4;\nconst SYS_SEND: u64 = 101;\n")
    gdb.run(f"set exo syscalls {table}")
    rows = gdb.json("exo-syscall list")["syscalls"]
    assert [(row["number"], row["name"], row["breakpoints"]) for row in rows] == [
        (4, "getpid", []),
        (101, "send", [1]),
    ]
    assert "System call 101 send(" in gdb.run("continue")


def test_a_file_that_gdb_reads_anew_is_looked_at_anew(guest: OpenGuest, tmp_path: Path) -> None:
    """GDB does so at `target remote`, if the file is another one now than at `file`."""
    elf, full = tmp_path / "kernel.elf", tmp_path / "full.elf"
    shutil.copy(build_kernel("stripped").elf, elf)
    one = guest("run=demo", elf=elf, attach=False, stopped=True)
    assert "no table of system-call numbers" in one.gdb.fails("exo-syscall list")
    shutil.copy(build_kernel().elf, full)
    os.utime(full, (0, elf.stat().st_mtime + 10))  # GDB looks at seconds
    full.replace(elf)
    one.gdb.run(f"target remote {one.qemu.gdb_socket}")
    rows = one.gdb.json("exo-syscall list")["syscalls"]
    assert {row["number"]: (row["name"], row["group"]) for row in rows} == TABLE
