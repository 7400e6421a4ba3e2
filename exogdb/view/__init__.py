"""Reports turned into text for people and JSON for scripts. Pure."""

__all__: list[str] = []
