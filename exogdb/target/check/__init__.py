"""Everything that the doctor's rules look at, read from a stopped guest."""

__all__: list[str] = []
