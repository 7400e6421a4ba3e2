"""scripts/make-venv: made once, made anew when it would not serve, and never half made.

The Python that it calls is a small script; nothing is installed and no network is asked.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness.kernel import ROOT

PYTHON = """#!/bin/sh
case "$*" in
-V) echo "Python $(cat version)" ;;
"-c "*) exit 0 ;;
"-m venv --clear "*) echo venv >>log; rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
"-m pip install "*) echo pip >>log; [ ! -e offline ] || { echo "ERROR: No matching distribution" >&2; exit 1; } ;;
*) echo "unexpected: $*" >&2; exit 2 ;;
esac
"""


class Clone:
    """A directory with the script, a pyproject.toml and a Python that notes what it is asked for."""

    def __init__(self, top: Path) -> None:
        self.top = top
        (top / "scripts").mkdir(parents=True)
        for name in ("make-venv", "find-python"):
            shutil.copy(ROOT / "scripts" / name, top / "scripts")
        (top / "pyproject.toml").write_text("[project]\n")
        (top / "version").write_text("3.11.2")
        python = top / "python3"
        python.write_text(PYTHON)
        python.chmod(0o755)

    def make(self) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(self.top / "scripts" / "make-venv")],
            env={"PATH": "/usr/bin:/bin", "PYTHON": str(self.top / "python3")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def asked(self) -> list[str]:
        """What Python was asked to do since the last time."""
        log = self.top / "log"
        words = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return words


@pytest.fixture(params=["plain", "with a blank", "it's", 'a "quote"', "cafe-\N{LATIN SMALL LETTER E WITH ACUTE}"])
def clone(request: pytest.FixtureRequest, tmp_path: Path) -> Clone:
    return Clone(tmp_path / request.param)


def test_it_is_made_once(clone: Clone) -> None:
    first, second = clone.make(), clone.make()
    assert (first.returncode, first.stdout, first.stderr) == (0, "", "exogdb: making .venv\n")
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert clone.asked() == ["venv", "pip"]


def test_a_try_that_failed_half_way_is_repaired_by_the_next(clone: Clone) -> None:
    (clone.top / "offline").touch()
    done = clone.make()
    assert done.returncode == 1
    assert "pip could not bring in what pyproject.toml names" in done.stderr.splitlines()[-1]
    assert not (clone.top / ".venv" / ".stamp").exists()
    (clone.top / "offline").unlink()
    assert clone.make().returncode == 0
    assert clone.asked() == ["venv", "pip"] * 2


def test_it_is_made_anew_when_it_would_not_serve(clone: Clone, tmp_path: Path) -> None:
    clone.make()
    (clone.top / "pyproject.toml").write_text("[project]\nname = 'another'\n")
    clone.make()
    (clone.top / "version").write_text("3.13.5")
    clone.make()
    assert clone.asked() == ["venv", "pip"] * 3
    clone.top = clone.top.rename(tmp_path / "moved")
    clone.make()
    assert clone.asked() == ["venv", "pip"]


def test_an_old_python_is_one_sentence(clone: Clone) -> None:
    (clone.top / "python3").write_text(PYTHON.replace('"-c "*) exit 0', '"-c "*) exit 1'))
    find = clone.top / "scripts" / "find-python"
    find.write_text(find.read_text().replace("python3 /usr/bin/python3", ""))
    done = clone.make()
    assert done.returncode == 1
    assert done.stderr == "exogdb: there is no Python 3.11 or newer with venv\n"
