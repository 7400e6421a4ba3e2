"""IA32_APIC_BASE: where the local APIC is and in which mode. Source: Intel SDM Vol. 3A, Local APIC Status
and Location.
"""

from dataclasses import dataclass

from exogdb.x86.flags import Flag, decode_flags

__all__ = ["APIC_BASE", "ApicBase", "decode_apic_base"]

APIC_BASE: tuple[Flag, ...] = (
    Flag("BSP", 8, "this CPU is the bootstrap processor", "SDM Vol. 3A, Local APIC Status and Location"),
    Flag("EXTD", 10, "x2APIC mode", "SDM Vol. 3A, Detecting and Enabling x2APIC Mode"),
    Flag("EN", 11, "the local APIC is enabled", "SDM Vol. 3A, Local APIC Status and Location"),
)
ADDRESS_MASK = 0x000FFFFFFFFFF000


@dataclass(frozen=True)
class ApicBase:
    """`address` is physical; `mode` is `disabled`, `xAPIC`, `x2APIC` or `invalid` (EXTD without EN)."""

    value: int
    address: int
    flags: tuple[str, ...]
    mode: str


def decode_apic_base(value: int) -> ApicBase:
    """The fields of IA32_APIC_BASE.

    >>> decode_apic_base(0xfee00900)
    ApicBase(value=4276095232, address=4276092928, flags=('BSP', 'EN'), mode='xAPIC')
    """
    flags = decode_flags(value, APIC_BASE, known=ADDRESS_MASK)
    modes = {
        (False, False): "disabled",
        (True, False): "xAPIC",
        (True, True): "x2APIC",
        (False, True): "invalid",
    }
    return ApicBase(value, value & ADDRESS_MASK, flags, modes["EN" in flags, "EXTD" in flags])
