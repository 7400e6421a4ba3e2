"""Recorded system calls: parsing, pairing, counting and storing them. Pure.

Both engines (QEMU's execution log, and stops at entry and return) produce the same two events,
`exogdb.trace.event.Entry` and `Return`; everything after that does not know which engine ran.
"""

__all__: list[str] = []
