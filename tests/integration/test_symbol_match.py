"""Symbols of another build of the kernel are not taken for those of the one that runs."""

import json

from tests.harness.kernel import build_kernel
from tests.integration.conftest import OpenGuest


def test_symbols_of_another_build_are_warned_of_and_the_right_ones_are_not(guest: OpenGuest) -> None:
    one = guest()
    gdb, other = one.gdb, build_kernel("debug").elf
    for command in ("exo-gs", "exo-syscall list", "exo-syscall break 101"):
        assert gdb.reply(command).err == "", command
    gdb.run("delete")
    gdb.run(f"file {other}")
    for command in ("exo-gs --json", "exo-syscall list --json", "exo-syscall break 101 --json"):
        reply = gdb.reply(command)
        assert reply.err.startswith(f"warning: {other} is not the kernel that runs: of "), command
        assert len(reply.err.splitlines()) == 1
        assert json.loads(reply.out), "the warning is not in the document"
    gdb.run(f"file {one.kernel.elf}")
    assert gdb.reply("exo-gs").err == ""


def test_nothing_is_said_before_the_code_is_mapped(guest: OpenGuest) -> None:
    one = guest(stopped=True)
    one.gdb.run(f"file {build_kernel('debug').elf}")
    assert "is not the kernel" not in one.gdb.reply("exo-gs").err
    one.gdb.run(f"file {one.kernel.elf}")
    one.gdb.run("hbreak init_syscall")
    one.gdb.run("continue")
    one.gdb.run(f"file {build_kernel('debug').elf}")
    assert "is not the kernel that runs" in one.gdb.reply("exo-gs").err
