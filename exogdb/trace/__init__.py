"""Recorded system calls: parsing, pairing, summaries, reports. Pure."""

__all__: list[str] = []
