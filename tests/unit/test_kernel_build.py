"""What `make kernel` prints: a short line for each step, the commands with V=1, nothing with -s."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.harness.kernel import ROOT

STEP = "  AS      boot.S"


@pytest.mark.parametrize(("arguments", "first_words"), [((), [STEP]), (("V=1",), ["gcc"]), (("-s",), [])])
def test_a_step_is_one_short_line(tmp_path: Path, arguments: tuple[str, ...], first_words: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS"}}
    done = subprocess.run(
        ["make", "-f", "kernel/kernel.mk", f"KERNEL_OBJECTS={tmp_path}", *arguments, f"{tmp_path}/boot.o"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if not line.startswith("make")]
    assert [line if line == STEP else line.split()[0] for line in lines] == first_words
    assert (tmp_path / "boot.o").exists()
