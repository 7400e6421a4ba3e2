"""`set exo ...`: what the user told exogdb about this kernel and this QEMU."""

from collections.abc import Callable

import gdb

__all__ = ["let_names_be_utf8", "profile_file", "qmp_socket", "register_settings", "syscall_table_file"]


class _PathSetting(gdb.Parameter):
    """A file name; empty means that exogdb finds out by itself."""

    def __init__(self, name: str, meaning: str) -> None:
        # GDB takes the help of a parameter from these attributes at construction.
        self.set_doc = f"Set {meaning}."
        self.show_doc = f"Show {meaning}."
        self.__doc__ = f"Empty (the default) means that exogdb finds it by itself.\nExample: set exo {name} PATH"
        super().__init__(f"exo {name}", gdb.COMMAND_DATA, gdb.PARAM_OPTIONAL_FILENAME)
        self.value = ""
        self._name = name

    def get_set_string(self) -> str:
        """GDB prints this after `set`; nothing is wanted."""
        return ""

    def get_show_string(self, value: str) -> str:
        """The line that `show exo NAME` prints."""
        return _show(self._name, value)


# As nl_langinfo(CODESET) calls it.
_ASCII = "ANSI_X3.4-1968"
_SETTINGS = {
    "qmp-socket": "the unix socket or HOST:PORT of QEMU's QMP monitor",
    "profile": "the profile file (TOML) that describes this kernel's system-call path",
    "syscalls": "the source or header file with this kernel's system-call numbers",
}


def register_settings() -> None:
    """Add `set exo` and `show exo` to GDB. Called once by `gdbinit.py`."""
    _prefix("set exo", "Set what exogdb should know about this kernel and this QEMU.", _name_settings)
    _prefix("show exo", "Show what exogdb was told about this kernel and this QEMU.", _show_all)
    for name, meaning in _SETTINGS.items():
        _PathSetting(name, meaning)


def let_names_be_utf8() -> None:
    """In the C locale: have GDB take text for UTF-8, of which ASCII is a part. Called once by `gdbinit.py`.

    GDB's Python API gives the names of files in its host character set, and raises UnicodeDecodeError for others:
    in a directory called `ü` nothing worked where no locale is set.
    """
    if gdb.host_charset() == _ASCII:
        gdb.set_parameter("host-charset", "UTF-8")


def qmp_socket() -> str:
    """The path or HOST:PORT given by `set exo qmp-socket`, or an empty string."""
    return _path("qmp-socket")


def profile_file() -> str:
    """The path given by `set exo profile`, or an empty string."""
    return _path("profile")


def syscall_table_file() -> str:
    """The path given by `set exo syscalls`, or an empty string."""
    return _path("syscalls")


def _path(name: str) -> str:
    value = gdb.parameter(f"exo {name}")
    return value if isinstance(value, str) else ""


def _show(name: str, value: str) -> str:
    return f"exo {name}: {value or 'found by exogdb itself'}"


def _name_settings() -> None:
    raise gdb.GdbError(f"set exo needs one of {', '.join(_SETTINGS)}: `help set exo` describes them")


def _show_all() -> None:
    for name in _SETTINGS:
        gdb.write(f"{_show(name, _path(name))}\n")


def _prefix(name: str, summary: str, alone: Callable[[], None]) -> None:
    """A word that only settings follow; GDB calls `alone` when none does, and refuses unknown ones."""

    def invoke(_self: gdb.Command, _argument: str, _from_tty: bool) -> None:
        alone()

    attributes = {"__doc__": summary, "invoke": invoke}
    type(name, (gdb.Command,), attributes)(name, gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)
