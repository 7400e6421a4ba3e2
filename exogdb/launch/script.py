r"""The commands that GDB runs before a user sees its prompt.

The script shows what it does for the user as if it had been typed, and does the rest silently:

>>> print(show("exo-gs"), end="")
echo (gdb) exo-gs\n
exo-gs
"""

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Script", "find_launcher", "render_script", "show"]


@dataclass(frozen=True)
class Script:
    """What GDB has to do: attach to `target`, reach the first system call, run `commands`.

    `entry` is where system calls enter the kernel; None leaves the guest where attaching stopped it. `booted`
    is announced once the guest has got there. `last` is the last command, not shown: `disconnect` or `detach` when
    GDB ends then, nothing when a user gets its prompt.
    """

    target: str
    entry: int | None
    booted: Path
    programs: tuple[Path, ...] = ()
    commands: tuple[str, ...] = ()
    farewell: str = ""
    last: str = ""


def find_launcher() -> str:
    """What starts the launcher in a shell: its path in this checkout's `.venv`, or its name if it is elsewhere."""
    program = Path(__file__).resolve().parents[2] / ".venv" / "bin" / "exogdb"
    return str(program) if program.is_file() else "exogdb"


def render_script(script: Script) -> str:
    """The script as text for `gdb -x`. GDB leaves it at the first command that fails."""
    lines = ["set pagination off", *_load_plugin(), *_start(script), "frame"]
    text = "\n".join(lines) + "\n" + "".join(show(command) for command in script.commands)
    text += "".join(f"echo {_escape(line)}\\n\n" for line in script.farewell.splitlines())
    return text + "set pagination on\n" + (f"{script.last}\n" if script.last else "")


def show(command: str) -> str:
    """`command`, preceded by what a user would have typed."""
    return f"echo (gdb) {_escape(command)}\\n\n{command}\n"


def _load_plugin() -> list[str]:
    package = Path(__file__).resolve().parents[1]
    gdbinit = package.parent / "gdbinit.py"
    if gdbinit.is_file():
        return [f"source {gdbinit}"]
    # Installed without its source tree: the dependencies are beside the package.
    return [
        f"python import sys; sys.path.append({json.dumps(str(package.parent))})",
        "python from exogdb.commands import load; load()",
    ]


def _start(script: Script) -> list[str]:
    words = [script.target, script.entry, [str(program) for program in script.programs], str(script.booted)]
    define = "python from exogdb.commands.start import define_start; define_start()"
    return [define, f"maintenance exogdb-start {json.dumps(words)}"]


def _escape(text: str) -> str:
    # `echo` drops leading blanks and reads backslashes.
    escaped = text.replace("\\", "\\\\")
    return f"\\ {escaped[1:]}" if escaped.startswith(" ") else escaped
