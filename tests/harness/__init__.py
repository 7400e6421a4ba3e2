"""What integration tests stand on: the built kernel, a real QEMU, a real GDB.

A truth that a test compares with is read by `Gdb.integer()` and `Gdb.memory()`, in GDB's own words, or comes
from the kernel's own records and serial log: never from another read of the plugin.
"""

__all__: list[str] = []
