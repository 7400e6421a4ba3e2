"""The GDB commands, one file each: parse, read, decode, show."""

__all__: list[str] = []
