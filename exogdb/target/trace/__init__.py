"""The two engines that see every system call, and what they need from the guest."""

__all__: list[str] = []
