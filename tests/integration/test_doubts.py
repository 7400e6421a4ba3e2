"""Where the analysis of the entry stub is not sure of something, every command that rests on it says so."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.session import Guest, open_guest

DOUBT = "the kernel does something strange"
# Puts the doubt into what is remembered of the stub's analysis, which holds while the stub's bytes stay the same.
PLANT = f"""
import dataclasses, exogdb.target.analysed, exogdb.target.path
for entry, known in exogdb.target.path._remembered.items():
    path = dataclasses.replace(known.path, doubts=({DOUBT!r},))
    exogdb.target.path._remembered[entry] = dataclasses.replace(known, path=path)
    exogdb.target.analysed.keep_path(path)
"""
SHOWN = f"not sure: {DOUBT}"


@pytest.fixture(scope="module")
def doubtful() -> Iterator[Guest]:
    """In the handler of ipc_send, with a path that is not sure of something."""
    with open_guest() as guest:
        guest.gdb.run("hbreak sys_ipc_send")
        guest.gdb.run("continue")
        guest.gdb.run("delete")
        guest.gdb.run(f"python exec({PLANT!r})")
        yield guest


# In this order they follow one call after the other.
LOOKS = ["exo-syscall abi", "exo-syscall frame", "exo-syscall list 101"]
RUNS = ["exo-syscall finish", "exo-syscall next", "exo-syscall step"]
TRACES = ["exo-syscall trace --count 3", "exo-syscall summary --count 3"]
WITH_JSON = [*LOOKS, "exo-syscall next", "exo-syscall step", "exo-syscall summary --count 3"]


@pytest.mark.parametrize("command", [*LOOKS, *RUNS, *TRACES])
def test_it_is_said_on_the_screen(doubtful: Guest, command: str) -> None:
    text = " ".join(doubtful.gdb.run(command).split())
    assert SHOWN in text


@pytest.mark.parametrize("command", WITH_JSON)
def test_it_is_in_json(doubtful: Guest, command: str) -> None:
    assert DOUBT in doubtful.gdb.json(command)["doubts"]


def test_a_breakpoint_says_it(doubtful: Guest) -> None:
    assert SHOWN in " ".join(doubtful.gdb.run("exo-syscall break 101").split())
    doubtful.gdb.run("delete")


def test_a_backtrace_says_where_to_look(doubtful: Guest) -> None:
    doubtful.gdb.run("hbreak sys_ipc_send")
    doubtful.gdb.run("continue")
    doubtful.gdb.run("delete")
    assert "<system call 101 ipc_send> (not sure: see exo-syscall abi)" in doubtful.gdb.run("bt")


def test_a_record_keeps_it(doubtful: Guest, tmp_path: Path) -> None:
    text = doubtful.gdb.run(f"exo-syscall record {tmp_path / 'calls.jsonl'} --count 3 all")
    assert SHOWN in " ".join(text.split())
    header = json.loads((tmp_path / "calls.jsonl").read_text().splitlines()[0])
    assert header["doubts"] == [DOUBT]
