"""Loads exogdb into GDB: `source gdbinit.py`.

Works from any directory. The package is the one beside this file; its dependencies are looked for in the
`.venv` beside it (made by `make venv`) and then wherever GDB's own Python finds them. Libraries are
imported by the first command that needs them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gdb

# Not __file__: GDB leaves that of the outer file when one Python file sources another.
_ROOT = Path((lambda: None).__code__.co_filename).resolve().parent
_OLDEST_PYTHON = (3, 11)
_DEPENDENCIES = ("qemu.qmp", "tabulate", "pygments", "capstone", "unicorn")


def _add_paths() -> None:
    sites = sorted((_ROOT / ".venv" / "lib").glob("python3*/site-packages"))
    for path in [str(_ROOT), *map(str, sites)]:
        if path not in sys.path:
            sys.path.append(path)


def _missing() -> list[str]:
    from importlib.util import find_spec

    missing = []
    for name in _DEPENDENCIES:
        try:
            found = find_spec(name) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            missing.append(name)
    return missing


def _problem() -> str | None:
    """Why exogdb cannot be loaded, as one sentence; None when it can."""
    if sys.version_info < _OLDEST_PYTHON:
        return f"exogdb needs GDB with Python 3.11 or newer; this one has {sys.version.split()[0]}"
    missing = _missing()
    if missing:
        from shlex import quote

        return f"exogdb lacks {', '.join(missing)}: run `make -C {quote(str(_ROOT))} venv` and source this again"
    return None


def _load() -> None:
    _add_paths()
    problem = _problem()
    if problem is not None:
        # GDB shows every exception of a sourced file with its traceback, gdb.GdbError too.
        gdb.write(f"{problem}\n", gdb.STDERR)
        return
    from exogdb.commands import load

    load()


_load()
