"""The reference kernel, built the way a user builds it: `make kernel`, once for all test workers."""

import fcntl
import functools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Kernel", "build_kernel"]

ROOT = Path(__file__).resolve().parents[2]
BUILD_SECONDS = 300


@dataclass(frozen=True)
class Kernel:
    """A built kernel and its user programs, each an ELF file with debug info."""

    elf: Path
    programs: tuple[Path, ...]


@functools.cache
def build_kernel(variant: str = "") -> Kernel:
    """Build `VARIANT=variant` (default: the plain kernel) unless it is up to date, and say where it is.

    A file lock serialises test workers: the first one builds, the others find it built.
    """
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with (build / "kernel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # `make test` has brought in the packages, and looking for each of them takes longer than all the rest.
        _make("-o", "packages", "kernel", *([f"VARIANT={variant}"] if variant else []))
    directory = build / "kernel" / variant
    return Kernel(directory / "exo-os.elf", tuple(sorted((directory / "programs").glob("*.elf"))))


def _make(*arguments: str) -> None:
    # The outer make's job server and flags are not for this one.
    environment = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS"}}
    done = subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"make {' '.join(arguments)} failed:\n{done.stdout}"
