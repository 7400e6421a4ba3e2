"""The addresses that QEMU's execution log is to be limited to, so that system calls can be traced without stops.

`-dfilter` can only be given when QEMU starts; the log itself is switched on and off while it runs. The filter
alone costs nothing and writes nothing.
"""

from exogdb.launch.image import Image

__all__ = ["log_filter"]


def log_filter(image: Image) -> tuple[str, ...]:
    """QEMU's `-dfilter` option for the entry of `image`; empty when the entry is not known."""
    addresses = [image.entry] if image.entry is not None else []
    ranges = ",".join(f"{address:#x}+1" for address in addresses)
    return ("-dfilter", ranges) if ranges else ()
