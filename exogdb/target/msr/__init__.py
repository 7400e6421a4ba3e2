"""MSRs of the running guest: from the stub, from QEMU's device state, or by RDMSR executed in the guest."""

__all__: list[str] = []
