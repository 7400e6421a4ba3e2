"""The running guest: memory, registers, MSRs and symbols through GDB and QMP."""

__all__: list[str] = []
