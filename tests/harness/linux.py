"""The distribution's Linux as a guest: a kernel that nobody here wrote.

The kernel comes from the Debian package that `linux-image-cloud-amd64` depends on, unpacked below `build/linux/`
and never installed. Its only program is tests/linux/init.c, which prints what is true (MSRs read inside the guest,
addresses from /proc/kallsyms) and then keeps calling.

It boots once for each of `MACHINES`. What QEMU saved of it right after the line `ready` (its migration stream,
below `build/linux/`) is where every guest starts: one of its own for each test, seconds earlier. `make test` has
them booted before the first test, two at a time (`python -m tests.harness.linux`).
"""

import fcntl
import functools
import hashlib
import lzma
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exogdb.launch.deadline import wait_until
from exogdb.launch.qemu import Machine, Qemu
from tests.harness.gdb import Gdb
from tests.harness.kernel import ROOT, Kernel
from tests.harness.qmp import ask_qmp
from tests.harness.session import Guest, private_directory

__all__ = ["NUMBERS", "LinuxTruth", "build_linux", "open_linux"]

BOOT_SECONDS = 60.0
SAVE_SECONDS = 60.0
# The system-call numbers of x86-64 Linux, from the package linux-libc-dev.
NUMBERS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")

# (number of CPUs, QEMU's name of their model)
MACHINES = ((2, "qemu64"), (2, "EPYC"), (2, "max"), (1, "qemu64"), (1, "Skylake-Client"))

_META_PACKAGE = "linux-image-cloud-amd64"
_APPEND = "console=ttyS0 nokaslr panic=-1 quiet"
_COMMAND_SECONDS = 180


@dataclass(frozen=True)
class LinuxTruth:
    """What the guest itself printed: MSR values by (CPU, number), kernel addresses by symbol."""

    msrs: dict[tuple[int, int], int]
    symbols: dict[str, int]

    @classmethod
    def from_serial(cls, text: str) -> "LinuxTruth":
        """Read from the console output, up to the line `ready`."""
        msrs = re.findall(r"^msr cpu=(\d+) (\w+)=0x(\w+)", text, re.MULTILINE)
        symbols = re.findall(r"^symbol (\w+)=0x(\w+)", text, re.MULTILINE)
        return cls(
            {(int(cpu), int(number, 16)): int(value, 16) for cpu, number, value in msrs},
            {name: int(address, 16) for name, address in symbols},
        )


@functools.cache
def build_linux() -> tuple[Path, Path, Path]:
    """(vmlinuz, initramfs, init with debug info), unpacked and built once. Test workers take turns."""
    build = ROOT / "build" / "linux"
    build.mkdir(parents=True, exist_ok=True)
    with (build.parent / "linux.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        vmlinuz, msr_driver = _unpack_kernel(build)
        init = build / "init"
        source = ROOT / "tests" / "linux" / "init.c"
        initramfs = build / "initramfs.cpio"
        if not initramfs.exists() or initramfs.stat().st_mtime < source.stat().st_mtime:
            _run("gcc", "-static", "-no-pie", "-g", "-O1", "-Wall", "-Werror", "-o", str(init), str(source))
            _make_initramfs(initramfs, init, msr_driver)
    return vmlinuz, initramfs, init


@contextmanager
def open_linux(
    smp: int = 2, cpu: str = "qemu64", qemu: tuple[str, ...] = ()
) -> Iterator[tuple[Guest, LinuxTruth]]:
    """A Linux that has just printed `ready`, and a GDB that has the plugin and the program's symbols.

    `smp` and `cpu` are one of `MACHINES`. `qemu` is added to QEMU's command line; it must not change the machine.
    """
    assert (smp, cpu) in MACHINES, "name it there, to have it booted in time"
    vmlinuz, _, init = build_linux()
    state, printed = _booted(smp, cpu)
    machine = _machine(smp, cpu, "-incoming", f"exec:cat {state}", *qemu)
    with ExitStack() as stack:
        directory = stack.enter_context(private_directory())
        process = stack.enter_context(Qemu(machine, directory))
        wait_until(lambda: _status(process, "status")["status"] == "paused", SAVE_SECONDS, "the saved Linux")
        gdb = stack.enter_context(Gdb([init, "-ex", f"source {ROOT / 'gdbinit.py'}"], warm=True))
        gdb.run(f"set exo syscalls {NUMBERS}")
        gdb.run(f"target remote {process.gdb_socket}")
        yield Guest(Kernel(vmlinuz, (init,)), process, gdb), LinuxTruth.from_serial(printed.read_text())


def _machine(smp: int, cpu: str, *extra: str) -> Machine:
    vmlinuz, initramfs, _ = build_linux()
    return Machine(vmlinuz, _APPEND, smp, extra=("-initrd", str(initramfs), "-cpu", cpu, *extra))


@functools.cache
def _booted(smp: int, cpu: str) -> tuple[Path, Path]:
    """(migration stream, console output) of this machine at `ready`; booted once. Test workers take turns."""
    vmlinuz, initramfs, _ = build_linux()
    version = _run("qemu-system-x86_64", "--version")
    # Not the time of the last access: reading a file would make another machine of it.
    files = [(each.stat().st_size, each.stat().st_mtime_ns) for each in (vmlinuz, initramfs)]
    made_of = f"{version} {_machine(smp, cpu)} {files}"
    folder = ROOT / "build" / "linux" / "booted"
    folder.mkdir(exist_ok=True)
    place = folder / f"{cpu}-{smp}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            for old in folder.glob(f"{cpu}-{smp}-*[!k]"):
                shutil.rmtree(old)
            print(f"  BOOT    Linux on {cpu}, {smp} CPU{'s' if smp > 1 else ''}", flush=True)
            _boot_and_save(_machine(smp, cpu), place)
    return place / "state", place / "serial.log"


def _boot_and_save(machine: Machine, place: Path) -> None:
    with private_directory() as directory:
        saved = directory / "saved"
        saved.mkdir()
        with Qemu(machine, directory) as process:
            process.wait_serial("ready", BOOT_SECONDS)
            migrate = {"execute": "migrate", "arguments": {"uri": f"exec:cat > {saved / 'state'}"}}
            ask_qmp(process.qmp_socket, {"execute": "stop"}, migrate)
            wait_until(
                lambda: _status(process, "migrate")["status"] == "completed", SAVE_SECONDS, "Linux in a file"
            )
            (saved / "serial.log").write_text(process.serial())
        shutil.move(saved, place)


def _status(process: Qemu, what: str) -> dict[str, Any]:
    (answer,) = ask_qmp(process.qmp_socket, {"execute": f"query-{what}"})
    return dict(answer)


def _unpack_kernel(build: Path) -> tuple[Path, Path]:
    tree = build / "tree"
    if not tree.exists():
        partial = build / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _run("apt-get", "download", "-q", _concrete_package(), cwd=partial)
        (package,) = partial.glob("*.deb")
        _run("dpkg-deb", "-x", str(package), str(partial))
        partial.rename(tree)
    (vmlinuz,) = tree.glob("boot/vmlinuz-*")
    (driver,) = tree.glob("**/lib/modules/*/kernel/arch/x86/kernel/msr.ko*")
    return vmlinuz, driver


def _concrete_package() -> str:
    names = _dependencies()
    if not names:
        _run("apt-get", "update", "-q")
        names = _dependencies()
    assert names, f"apt knows no {_META_PACKAGE}, and `apt-get update` did not help"
    return names[0]


def _dependencies() -> list[str]:
    # apt-cache exits non-zero for a package it does not know, which is an answer here.
    command = ["apt-cache", "depends", _META_PACKAGE]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    return re.findall(r"Depends: (linux-image-\S+)", listed.stdout)


def _make_initramfs(initramfs: Path, init: Path, msr_driver: Path) -> None:
    root = initramfs.with_suffix(".root")
    shutil.rmtree(root, ignore_errors=True)
    (root / "dev").mkdir(parents=True)
    shutil.copy(init, root / "init")
    packed = msr_driver.read_bytes()
    (root / "msr.ko").write_bytes(lzma.decompress(packed) if msr_driver.suffix == ".xz" else packed)
    # Only the kernel's own built-in /dev/console is there before init runs, so no device node is needed.
    _run("cpio", "-o", "-H", "newc", "--quiet", "-F", str(initramfs), cwd=root, text="dev\ninit\nmsr.ko\n")


def _run(*command: str, cwd: Path = ROOT, text: str = "") -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}"
    return done.stdout


def _main() -> None:
    build_linux()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for booted in [pool.submit(_booted, *machine) for machine in MACHINES]:
            booted.result()


if __name__ == "__main__":
    _main()
