"""Letting the guest run from inside a command, and stopping it where the command wants."""

__all__: list[str] = []
