"""`source gdbinit.py`: from anywhere, quickly, and with one clear sentence when it cannot."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness.gdb import Gdb
from tests.harness.kernel import ROOT
from tests.harness.terminal import Terminal


def test_it_can_be_sourced_from_any_directory(tmp_path: Path) -> None:
    with Gdb(cwd=tmp_path) as gdb:
        assert gdb.run(f"source {ROOT / 'gdbinit.py'}") == ""
        assert "Usage: exo-msr" in gdb.run("help exo-msr")


def test_a_relative_path_will_do() -> None:
    with Gdb(cwd=ROOT / "docs") as gdb:
        assert gdb.run("source ../gdbinit.py") == ""
        gdb.run("help exo-gs")


def test_another_python_file_can_source_it(tmp_path: Path) -> None:
    outer = tmp_path / "outer.py"
    outer.write_text(f"import gdb\ngdb.execute({f'source {ROOT}/gdbinit.py'!r})\n")
    with Gdb() as gdb:
        assert gdb.run(f"source {outer}") == ""
        gdb.run("help exo-msr")


def test_sourcing_it_again_is_no_error() -> None:
    with Gdb() as gdb:
        for _ in range(2):
            assert gdb.run(f"source {ROOT / 'gdbinit.py'}") == ""


def test_show_exo_shows_every_setting_and_set_exo_names_them() -> None:
    with Gdb(["-ex", f"source {ROOT / 'gdbinit.py'}"]) as gdb:
        gdb.run("set exo qmp-socket /somewhere/qmp")
        shown = gdb.run("show exo").splitlines()
        assert "exo qmp-socket: /somewhere/qmp" in shown
        assert "exo profile: found by exogdb itself" in shown
        assert gdb.fails("set exo").startswith("set exo needs one of qmp-socket, profile, syscalls: ")


@pytest.mark.parametrize("wish", ["", "1"])
def test_no_color_is_obeyed(wish: str) -> None:
    words = ["source gdbinit.py", "exo-syscall check --list", "echo ended\\n", "quit"]
    command = ["gdb", "-nx", "-q", "-iex", "set height 0", *(word for text in words for word in ("-ex", text))]
    environment = {"TERM": "xterm", "NO_COLOR": wish}
    with Terminal(command, ROOT, environment) as terminal:
        coloured = "\x1b[36mEXO001" in terminal.wait_for("ended")
    assert coloured == (not wish)


def test_missing_dependencies_are_named_with_the_command_that_brings_them(tmp_path: Path) -> None:
    place = tmp_path / "a b"
    place.mkdir()
    shutil.copy(ROOT / "gdbinit.py", place)
    shutil.copytree(ROOT / "exogdb", place / "exogdb")
    with Gdb(["-ex", "python import sys; sys.path = [p for p in sys.path if 'packages' not in p]"]) as gdb:
        said = gdb.fails(f"source {place / 'gdbinit.py'}")
    assert "exogdb lacks " in said
    assert f"run `make -C '{place}' venv` and source this again" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("leave", "status"), [("quit", 0), ("quit 3", 3), ("nosuch", 1)])
def test_what_gdb_is_left_to_do_at_its_end_does_not_crash_it(leave: str, status: int) -> None:
    """GDB 13 ends with SIGSEGV if something has been posted that it did not come to do."""
    post = "python from exogdb.target.run.main_thread import run_on_main_thread; run_on_main_thread(print)"
    commands = [f"source {ROOT / 'gdbinit.py'}", post, "echo the last word\\n", leave]
    words = [word for command in commands for word in ("-ex", command)]
    done = subprocess.run(["gdb", "-nx", "-q", "-batch", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "the last word\n")
