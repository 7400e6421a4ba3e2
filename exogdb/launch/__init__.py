"""Starting QEMU and GDB together. Never imports gdb."""

__all__: list[str] = []
