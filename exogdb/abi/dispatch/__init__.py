"""Where each system-call number goes in the dispatcher, and where to stop for it. Pure."""

__all__: list[str] = []
