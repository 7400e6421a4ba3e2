"""The system call in progress: its frame, number, arguments and callers."""

__all__: list[str] = []
