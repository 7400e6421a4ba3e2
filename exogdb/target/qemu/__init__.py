"""Asking QEMU itself: its monitor, QMP, and the device state that it writes."""

__all__: list[str] = []
