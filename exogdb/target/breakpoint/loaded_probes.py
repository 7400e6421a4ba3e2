"""The probe files that GDB has loaded: what the names in the locations of breakpoints stand for.

GDB re-sets every breakpoint whenever a symbol file comes or goes. So a file is loaded only if its probes changed,
and before the old one goes: a row that lost all its locations would forget which of them were disabled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gdb

from exogdb.errors import UnavailableError
from exogdb.interrupts import interrupts_held
from exogdb.target.breakpoint.probe_file import Probe, make_probe_file
from exogdb.target.gdb_command import ask_gdb
from exogdb.target.own_files import OwnFiles
from exogdb.target.with_setting import with_setting

__all__ = ["LoadedProbes", "quietly"]


@dataclass(frozen=True)
class _ProbeFile:
    """A symbol file that is loaded now, and the probes in it."""

    path: Path
    probes: tuple[Probe, ...]


class LoadedProbes:
    """Symbol files by a name of their owner's choice, each with its probes.

    `is_unloading` says that GDB just now reports a file of these as gone.
    """

    def __init__(self) -> None:
        self.is_unloading = False
        self._own_files = OwnFiles()
        self._files: dict[str, _ProbeFile] = {}
        self._writes = 0

    def load(self, wanted: Mapping[str, tuple[Probe, ...]], before_change: Callable[[], None]) -> None:
        """Have exactly `wanted` loaded; `before_change` is called first, if anything has to change.

        :raise UnavailableError: a file cannot be written, and nothing has changed; or GDB does not take one.
        """
        wanted = {name: probes for name, probes in wanted.items() if probes}
        if {name: file.probes for name, file in self._files.items()} == wanted:
            return
        loaded = {name: file.probes for name, file in self._files.items()}
        new = {name: self._write(probes) for name, probes in wanted.items() if loaded.get(name) != probes}
        before_change()
        for name, file in new.items():
            _load(file)
            self._unload(self._files.get(name))
            self._files[name] = file
        for name in self._files.keys() - wanted.keys():
            self._unload(self._files.pop(name))

    def holds(self, objfile: gdb.Objfile) -> bool:
        """Whether `objfile` is one of these files."""
        return self._own_files.hold(objfile.filename)

    def _write(self, probes: tuple[Probe, ...]) -> _ProbeFile:
        self._writes += 1
        return _ProbeFile(self._own_files.write(f"syscalls-{self._writes}", make_probe_file(probes)), probes)

    def _unload(self, file: _ProbeFile | None) -> None:
        if file is None:
            return
        self.is_unloading = True
        try:
            if _is_loaded(file.path):  # or the user has removed it
                _run_undisturbed(f"remove-symbol-file {file.path}")
        finally:
            self.is_unloading = False
        file.path.unlink(missing_ok=True)


def _load(file: _ProbeFile) -> None:
    _run_undisturbed(f"add-symbol-file {file.path}")
    if not _is_loaded(file.path):
        raise UnavailableError(f"GDB does not load {file.path}, which the breakpoint needs")


def _is_loaded(path: Path) -> bool:
    return any(objfile.filename == str(path) for objfile in gdb.objfiles())


def _run_undisturbed(command: str) -> None:
    """Run a command that may come in the middle of a stop. Ctrl-C waits: it would make the command fail."""
    with interrupts_held(), gdb.with_parameter("confirm", False):
        ask_gdb(command)


_errand: list[Callable[[], object]] = []


def quietly(action: Callable[[], object]) -> None:
    """Run `action` with what GDB would print about it dropped: only a command's output can be caught.

    Ctrl-C waits: GDB would report it as an error of that command. Not while GDB decides about a stop.
    """
    _errand.append(action)
    with interrupts_held(), with_setting("confirm", False):
        gdb.execute(f"python import {__name__}; {__name__}._run_errand()", to_string=True)


def _run_errand() -> None:
    _errand.pop()()
