"""Loads exogdb into GDB: `source gdbinit.py`.

Works from any directory. The package is the one beside this file; its dependencies are looked for in the
`.venv` beside it (made by `make venv`) and then wherever GDB's own Python finds them. Commands and libraries are
imported when they are first needed; of Python's own, too, only what loads quickly (pathlib does not).
"""

from __future__ import annotations

import os
import sys
from glob import escape, glob

import gdb

# Not __file__: GDB leaves that of the outer file when one Python file sources another.
_ROOT = os.path.dirname(os.path.realpath((lambda: None).__code__.co_filename))
_OLDEST_PYTHON = (3, 11)
_DEPENDENCIES = ("qemu.qmp", "tabulate", "pygments", "capstone", "unicorn")


def _add_paths() -> None:
    sites = sorted(glob(os.path.join(escape(_ROOT), ".venv", "lib", "python3*", "site-packages")))
    for path in (_ROOT, *sites):
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

        return f"exogdb lacks {', '.join(missing)}: run `make -C {quote(_ROOT)} venv` and source this again"
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
