"""What a kernel's system-call path looks like, derived from its own code. Pure."""

__all__: list[str] = []
