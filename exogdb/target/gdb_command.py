"""GDB's own commands, asked in a way that does no harm if they fail.

A command that fails while GDB decides about a stop (in a breakpoint's condition, in what GDB reports on the way)
wakes GDB's prompt: `continue` comes back with the guest running (GDB 13, `execute_gdb_command`, which calls
`async_enable_stdin`). `thread apply ... -s` and `frame apply ... -s` swallow the failure before it gets there.
"""

import gdb

__all__ = ["ask_gdb"]


def ask_gdb(command: str, frame: gdb.Frame | None = None) -> str:
    """What `command` prints, with `frame` selected if one is given; nothing if it fails. Asks GDB only.

    `frame` is one of the selected thread's. Not from an unwinder: GDB 13 crashes.
    """
    thread = gdb.selected_thread()
    if frame is not None:
        where = f"frame apply level {frame.level()} -s -q "
    elif thread is not None and thread.is_valid():
        where = f"thread apply {thread.num} -s -q "
    else:
        where = ""  # no guest, no stop
    return gdb.execute(where + command, to_string=True)
