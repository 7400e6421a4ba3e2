"""What the x86-64 CPU defines: MSRs, RFLAGS, selectors, descriptors, addresses. Pure."""

__all__: list[str] = []
