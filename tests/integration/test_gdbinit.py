"""`source gdbinit.py`: from anywhere, quickly, and with one clear sentence when it cannot."""

import shutil
from pathlib import Path

from tests.harness.gdb import Gdb
from tests.harness.kernel import ROOT

HEAVY = ("asyncio", "capstone", "pygments", "tabulate", "unicorn", "qemu.qmp.qmp_client")


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


def test_what_a_session_does_not_use_is_not_loaded() -> None:
    with Gdb(["-ex", f"source {ROOT / 'gdbinit.py'}"]) as gdb:
        loaded = gdb.run("python import sys; print(*sys.modules)").split()
        assert not set(HEAVY) & set(loaded)


def test_missing_dependencies_are_named_with_the_command_that_brings_them(tmp_path: Path) -> None:
    shutil.copy(ROOT / "gdbinit.py", tmp_path)
    shutil.copytree(ROOT / "exogdb", tmp_path / "exogdb")
    with Gdb(["-ex", "python import sys; sys.path = [p for p in sys.path if 'packages' not in p]"]) as gdb:
        said = gdb.fails(f"source {tmp_path / 'gdbinit.py'}")
    assert "exogdb lacks " in said
    assert f"run `make -C {tmp_path} venv` and source this again" in said
    assert "Traceback" not in said
