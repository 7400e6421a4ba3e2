"""exogdb/abi/profile.py: what is saved comes back, and every mistake in a file has its sentence."""

from dataclasses import replace

import pytest

from exogdb.abi.profile import apply_profile, parse_profile, write_profile
from exogdb.abi.stub.entry import find_entry_path
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.abi.stub.location import InRegister, OnStack
from exogdb.errors import FormatError
from tests.unit.abi.stub_fixture import assemble_stub


def analyse(name: str) -> EntryPath:
    stub = assemble_stub(name)
    return find_entry_path(stub.memory, stub.labels["syscall_entry"])


def load(name: str, text: str) -> EntryPath:
    stub = assemble_stub(name)
    return apply_profile(parse_profile(text), "kernel.toml", stub.memory, stub.labels["syscall_entry"])


@pytest.mark.parametrize("name", ["seed", "shifted", "today"])
def test_a_saved_profile_changes_nothing_when_it_is_loaded(name: str) -> None:
    path = analyse(name)
    loaded = load(name, write_profile(path))
    assert loaded.profile == "kernel.toml"
    assert loaded.dispatcher == path.dispatcher
    assert (loaded.user_rsp_slot, loaded.kernel_rsp_slot) == (path.user_rsp_slot, path.kernel_rsp_slot)
    assert (loaded.frame.size, loaded.frame.base_below_top) == (path.frame.size, path.frame.base_below_top)
    assert [(slot.offset, slot.name, slot.restored_to) for slot in loaded.frame.slots] == [
        (slot.offset, slot.name, slot.restored_to) for slot in path.frame.slots
    ]


def test_groups_are_kept() -> None:
    groups = {"net": "open,close,%ipc", 'odd"name"': r"/^ipc_\w/"}
    assert parse_profile(write_profile(analyse("seed"), groups)).groups == groups


def test_what_a_profile_leaves_out_the_analysis_fills_in() -> None:
    assert replace(load("today", "version = 1"), profile="") == analyse("today")


def test_what_a_profile_says_wins() -> None:
    path = load("shifted", 'version = 1\nuser_rsp_slot = 0x30\n[dispatcher]\nnumber = "[rsp+0x8]"\n')
    assert path.user_rsp_slot == 0x30
    assert path.dispatcher is not None
    assert path.dispatcher.number == OnStack(8)
    assert path.dispatcher.arguments[0] == InRegister("rsi")


def test_every_key_wins() -> None:
    text = """version = 1
    kernel_rsp_slot = 0x48
    [frame]
    base_below_top = 0x50
    [[frame.slot]]
    offset = 0x10
    holds = "rip"
    restored_to = ["rip", "rcx"]
    [dispatcher]
    rsp_below_top = 0x58
    realigned = true
    arguments = ["r15", "[rsp+0x10]", "", "", "", ""]
    """
    path, found = load("seed", text), analyse("seed")
    assert (path.kernel_rsp_slot, path.frame.base_below_top, path.frame.size) == (0x48, 0x50, 0x18)
    assert [(slot.offset, slot.holds, slot.restored_to) for slot in path.frame.slots] == [
        (0x10, "rip", ("rip", "rcx"))
    ]
    assert path.dispatcher is not None
    assert found.dispatcher is not None
    assert (path.dispatcher.rsp_below_top, path.dispatcher.realigned) == (0x58, True)
    assert path.dispatcher.arguments == (InRegister("r15"), OnStack(16), None, None, None, None)
    assert path.dispatcher.number == found.dispatcher.number, "which the file leaves out"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version = 2", "`version` must be 1"),
        ("", "`version` must be 1"),
        ("version =", "not TOML"),
        ("version = 1\nuser_rsp = 8", "`user_rsp` is not a key"),
        ('version = 1\nuser_rsp_slot = "8"', "`user_rsp_slot` must be a whole number"),
        ("version = 1\n[groups]\nnet = 3", "`groups.net` must be a string"),
        ("version = 1\n[dispatcher]\nnumber = 3", "`dispatcher.number` must be a string"),
        ('version = 1\n[dispatcher]\nnumber = "rdi+8"', "is no place"),
        ('version = 1\n[dispatcher]\narguments = ["rdi"]', "must be 6 strings"),
        ('version = 1\n[dispatcher]\nnumber = "eax"', "is no place"),
        ('version = 1\n[dispatcher]\nnumber = "rsp"', "is no place"),
        ('version = 1\n[dispatcher]\nnumber = "[rsp+0x1000]"', "are within 4096 bytes"),
        ('version = 1\n[dispatcher]\nnumber = "[rip+0x8]"', "is no place"),
        (f"version = 1\nuser_rsp_slot = {1 << 64}", "`user_rsp_slot` does not fit into 64 bits"),
        (f"version = 1\nuser_rsp_slot = {'9' * 5000}", "not TOML"),
        (f"version = 1\nuser_rsp_slot = {'[' * 5000}", "not TOML"),
        ('version = 1\n[groups]\n"a b" = "all"', "`groups.a b` cannot be chosen"),
        ('version = 1\n[[frame.slot]]\noffset = 8\nholds = "eip"', "`frame.slot` names 'eip'"),
        ("version = 1\n[[frame.slot]]\noffset = 8\nrestored_to = [3]", "`frame.slot` names 3"),
        ("version = 1\n[[frame.slot]]\noffset = 3", "multiple of 8"),
        ("version = 1\n[[frame.slot]]\noffset = 8\nat = 1", "`frame.slot.at` is not a key"),
    ],
)
def test_a_mistake_gets_a_sentence_that_names_the_key(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message.replace("[", r"\[")):
        parse_profile(text)


def test_a_call_that_the_stub_does_not_reach_is_refused() -> None:
    with pytest.raises(FormatError, match="reaches no call"):
        load("seed", "version = 1\n[dispatcher]\ncall = 0x500")
