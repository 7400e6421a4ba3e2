"""`exo-syscall abi` against what the kernel's symbols and debug info say of the same things."""

from pathlib import Path
from typing import Any

import pytest

from tests.harness.session import Guest
from tests.integration.conftest import OpenGuest

SEED_FRAME = ["r15", "r14", "r13", "r12", "rbx", "rbp", "rflags", "rip"]
TODAY_FRAME = ["rax", "r9", "r8", "r10", "rdx", "rdi", "rsi", "rsp", *SEED_FRAME]
SHIFTED = ["rdi", "rsi", "rdx", "rcx", "r8", "r9", "[rsp+0x8]"]


def registers_of(answer: dict[str, Any]) -> list[str]:
    return [slot["register"] for slot in answer["frame"]["slots"]]


def booted(guest: OpenGuest, variant: str, symbol: str) -> Guest:
    """Stopped when the kernel has set LSTAR: at its first system call's dispatcher."""
    one = guest(variant=variant, stopped=True)
    one.gdb.run(f"hbreak {symbol}")
    one.gdb.run("continue")
    return one


@pytest.mark.parametrize("variant", ["", "debug"])
def test_the_reference_kernel(guest: OpenGuest, variant: str) -> None:
    one = booted(guest, variant, "syscall_dispatch")
    answer = one.gdb.json("exo-syscall abi")
    assert int(answer["entry"], 16) == one.gdb.address("syscall_entry")
    dispatcher = answer["dispatcher"]
    assert int(dispatcher["address"], 16) == one.gdb.address("syscall_dispatch")
    assert [dispatcher["number"], *dispatcher["arguments"]] == SHIFTED
    assert (dispatcher["aligned"], dispatcher["disagreements"]) == (True, [])
    assert registers_of(answer) == SEED_FRAME
    assert (answer["kernel_rsp_slot"], answer["user_rsp_slot"]) == ("0x0", "0x8")
    assert [(way["kind"], way["gs"]) for way in answer["exits"]] == [("sysret", "user")]
    assert answer["doubts"] == []


def test_without_symbols_the_addresses_are_the_same(guest: OpenGuest) -> None:
    one = booted(guest, "", "syscall_dispatch")
    stripped = guest(variant="stripped")
    address = one.gdb.address("syscall_dispatch")
    with_symbols, without = one.gdb.json("exo-syscall abi"), stripped.gdb.json("exo-syscall abi")
    assert without["symbol"] is None
    assert int(without["dispatcher"]["address"], 16) == address
    for key in ("entry", "swapgs", "frame", "exits", "instructions", "user_rsp_slot", "kernel_rsp_slot"):
        assert without[key] == with_symbols[key], key


def test_the_design_as_printed_disagrees_with_its_dispatcher(guest: OpenGuest) -> None:
    one = booted(guest, "seed-literal", "syscall_dispatch")
    dispatcher = one.gdb.json("exo-syscall abi")["dispatcher"]
    assert dispatcher["number"] == "rax"
    assert any("num is taken from rdi" in problem for problem in dispatcher["disagreements"])


def test_the_later_shape(guest: OpenGuest) -> None:
    one = booted(guest, "today", "syscall_rust_handler")
    answer = one.gdb.json("exo-syscall abi")
    dispatcher = answer["dispatcher"]
    assert int(dispatcher["address"], 16) == one.gdb.address("syscall_rust_handler")
    assert dispatcher["frame_pointer"] == "rdi"
    assert dispatcher["number"] == "[rdi+0x0]"
    assert registers_of(answer) == TODAY_FRAME
    one.gdb.run("set language c")
    fields = {
        name: one.gdb.integer(f"(unsigned char*)&frame->{name} - (unsigned char*)frame")
        for name in ("rax", "rdi", "r15", "rcx")
    }
    offsets = {slot["register"]: slot["offset"] for slot in answer["frame"]["slots"]}
    assert {name: offsets[name] for name in ("rax", "rdi", "r15")} == {
        name: fields[name] for name in ("rax", "rdi", "r15")
    }
    assert offsets["rip"] == fields["rcx"]
    assert [(switch["source"], switch["on_exit"]) for switch in answer["cr3"]] == [
        ("gs:[0x40]", False),
        ("gs:[0x48]", True),
        ("gs:[0x48]", True),
    ]
    assert {way["kind"] for way in answer["exits"]} == {"sysret", "iret"}
    assert {way["gs"] for way in answer["exits"]} == {"user"}


def test_the_screen_annotates_every_step(guest: OpenGuest) -> None:
    text = booted(guest, "", "syscall_dispatch").gdb.run("exo-syscall abi")
    for note in ("GS base: user's -> kernel's", "frame+0x38: user rip", "dispatcher", "user rip", "rdi = 0"):
        assert note in text


def test_a_profile_is_saved_edited_and_loaded(guest: OpenGuest, tmp_path: Path) -> None:
    one = booted(guest, "", "syscall_dispatch")
    file = tmp_path / "kernel.toml"
    before = one.gdb.json("exo-syscall abi")
    assert str(file) in one.gdb.run(f"exo-syscall abi --save {file}")
    assert one.gdb.json(f"exo-syscall abi --save {file}") == {"profile": str(file)}
    one.gdb.run(f"set exo profile {file}")
    loaded = one.gdb.json("exo-syscall abi")
    assert loaded["profile"] == str(file)
    assert loaded["dispatcher"] == before["dispatcher"]
    file.write_text(file.read_text().replace('number = "rdi"', 'number = "rsi"'))
    assert one.gdb.json("exo-syscall abi")["dispatcher"]["number"] == "rsi"
    file.write_text("version = 1\nnonsense = 1\n")
    assert "`nonsense` is not a key of a profile" in one.gdb.fails("exo-syscall abi")
    one.gdb.run("set exo profile")
    assert one.gdb.json("exo-syscall abi")["profile"] is None


def test_before_the_kernel_sets_lstar_it_says_so(guest: OpenGuest) -> None:
    one = guest(stopped=True)
    one.gdb.run("hbreak init_syscall")
    one.gdb.run("continue")
    assert "has not set a system-call entry yet" in one.gdb.fails("exo-syscall abi")
