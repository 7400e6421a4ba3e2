"""Whether GDB can find the caller of code by something better than a look at its first instructions.

Without debug info and unwind tables GDB guesses from a function's prologue, and kernels are built without frame
pointers: the frames that it makes up then are wrong.
"""

import gdb

from exogdb.target.sections import find_code_with_tables

__all__ = ["has_frame_tables"]

# By the files that GDB has loaded; for the latest set of them only.
_code_of: dict[tuple[str | None, ...], list[range]] = {}


def has_frame_tables(address: int) -> bool:
    """Whether debug info or unwind tables cover the code at `address`. Nothing is read from the guest."""
    if gdb.find_pc_line(address).symtab is not None:
        return True
    loaded = tuple(objfile.filename for objfile in gdb.objfiles())
    if loaded not in _code_of:
        _code_of.clear()
        # Not by `ask_gdb`: this runs while GDB unwinds, and GDB 13 does not survive a choice of thread there.
        _code_of[loaded] = find_code_with_tables(gdb.execute("maint info sections -all-objects", to_string=True))
    return any(address in extent for extent in _code_of[loaded])
