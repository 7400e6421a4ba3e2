"""exogdb: a GDB plugin that shows the system-call path of an x86-64 kernel.

Layers, each importing only from those below it::

    commands   one file per GDB command: parse, read, decode, show           [gdb]
    launch     start QEMU and GDB together
    view       dataclass -> text or JSON
    target     memory, registers, MSRs, symbols of the running guest         [gdb, qemu.qmp]
    trace      recorded system calls
    abi        what a kernel's system-call path looks like
    x86        what the CPU defines
    reading, errors
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
