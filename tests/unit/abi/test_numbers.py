"""The number table is what the kernel's own source says."""

import pytest

from exogdb.abi.numbers import SyscallNumber, parse_numbers
from exogdb.errors import FormatError

SEED = """\
//! Numbers of the system calls.

// Process management
pub const SYS_EXIT: u64 = 0;
pub const SYS_FORK: u64 = 1;
// never returns
pub const SYS_EXEC: u64 = 2;

// IPC (Exo-OS specific)
pub const SYS_IPC_SEND: u64 = 101;

// Memory
pub(crate) const SYS_MMAP: usize = 0xc8;

// ============================
// Files
// ============================
const SYS_READ: u64 = 3_02;

pub const SYSCALL_TABLE_SIZE: usize = 550;
"""


def test_rust_constants_with_groups_from_headings() -> None:
    table = parse_numbers(SEED, "syscall.rs")
    assert [(e.number, e.name, e.constant, e.handler, e.group) for e in table] == [
        (0, "exit", "SYS_EXIT", "sys_exit", "process"),
        (1, "fork", "SYS_FORK", "sys_fork", "process"),
        (2, "exec", "SYS_EXEC", "sys_exec", "process"),
        (101, "ipc_send", "SYS_IPC_SEND", "sys_ipc_send", "ipc"),
        (200, "mmap", "SYS_MMAP", "sys_mmap", "memory"),
        (302, "read", "SYS_READ", "sys_read", "file"),
    ]
    assert table.source == "syscall.rs"
    assert table.groups == {
        "process": frozenset({0, 1, 2}),
        "ipc": frozenset({101}),
        "memory": frozenset({200}),
        "file": frozenset({302}),
    }
    assert 101 in table
    assert 550 not in table


def test_linux_header_with_aliases_and_sums() -> None:
    table = parse_numbers(
        """
        #define __NR_base 0x10
        #define __NR_read 0 /* fd, buf, n */
        #define SYS_read __NR_read
        #define __NR_newfstat (__NR_base + 5)
        #define SYS_fstat __NR_newfstat // old name
        #define __NR_syscalls 451
        #define SYS_broken sizeof(int)
        """
    )
    assert [(e.number, e.name, e.constant, e.aliases) for e in table] == [
        (0, "read", "__NR_read", ()),
        (16, "base", "__NR_base", ()),
        (21, "newfstat", "__NR_newfstat", ("fstat",)),
    ]
    assert table.by_name["fstat"] is table.find(21)


def test_two_constants_with_one_number_are_one_call() -> None:
    table = parse_numbers("pub const SYS_WAIT: u64 = 3;\npub const SYS_WAIT4: u64 = 3;")
    assert table.find(3) == SyscallNumber(3, "wait", "SYS_WAIT", "sys_wait", "", ("wait4",))


@pytest.mark.parametrize(
    ("heading", "group"),
    [
        ("// --- Files (300-303) ---", "file"),
        ("/* Process */", "process"),
        ("// ExoFS", "exofs"),
        ("// IPC", "ipc"),
        ("/// documentation of the constant", ""),
    ],
)
def test_group_is_the_first_word_of_the_heading(heading: str, group: str) -> None:
    (entry,) = parse_numbers(f"{heading}\npub const SYS_A: u64 = 1;")
    assert entry.group == group


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("#define SYS_X 0100", 64),
        ("const SYS_X: u64 = 0100;", 100),
        ("const SYS_X: u64 = 0x_1F;", 31),
        ("#define SYS_X 08", None),
        ("const SYS_X: u64 = 0x_;", None),
        ("const SYS_X: u64 = 0x1_0000_0000_0000_0000;", None),
        (f"const SYS_X: u64 = {'9' * 5000};", None),
    ],
)
def test_a_literal_is_what_its_language_says_or_no_number(line: str, number: int | None) -> None:
    table = parse_numbers(f"const SYS_ZERO: u64 = 0;\n{line}")
    assert [entry.number for entry in table] == [0, *([number] if number is not None else [])]


def test_a_source_without_numbers_is_refused() -> None:
    with pytest.raises(FormatError, match=r"main\.rs defines no SYS_\* or __NR_\* constant"):
        parse_numbers("fn main() {}", "main.rs")
