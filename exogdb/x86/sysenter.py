"""IA32_SYSENTER_CS, _ESP and _EIP: the other fast entry. Source: Intel SDM Vol. 2B (SYSENTER, SYSEXIT).

AMD CPUs raise #UD for SYSENTER in long mode; Intel CPUs allow it there, 64-bit code included.

SYSENTER saves nothing, neither rip nor rsp, and has no mask of flags: it clears VM, IF and RF, so TF, DF, NT and
AC are the program's in the first kernel instruction. It does switch stacks, to IA32_SYSENTER_ESP.
"""

from dataclasses import dataclass

from exogdb.x86.selector import Selector

__all__ = ["SysenterCs", "decode_sysenter_cs"]


@dataclass(frozen=True)
class SysenterCs:
    """The selectors that follow from IA32_SYSENTER_CS; `enabled` is false where SYSENTER raises #GP."""

    value: int
    enabled: bool
    sysenter_cs: Selector
    sysenter_ss: Selector
    sysexit32_cs: Selector
    sysexit32_ss: Selector
    sysexit64_cs: Selector
    sysexit64_ss: Selector


def decode_sysenter_cs(value: int) -> SysenterCs:
    """What SYSENTER and SYSEXIT load. Only bits 15:0 count.

    >>> decoded = decode_sysenter_cs(0x8)
    >>> hex(decoded.sysexit64_cs.value), decoded.enabled, decode_sysenter_cs(0).enabled
    ('0x2b', True, False)
    """
    base = value & 0xFFFC
    cs = value & 0xFFFF
    return SysenterCs(
        value=value,
        enabled=base != 0,
        sysenter_cs=Selector(base),
        sysenter_ss=Selector(base + 8 & 0xFFFF),
        sysexit32_cs=Selector(cs + 16 & 0xFFFF | 3),
        sysexit32_ss=Selector(cs + 24 & 0xFFFF | 3),
        sysexit64_cs=Selector(cs + 32 & 0xFFFF | 3),
        sysexit64_ss=Selector(cs + 40 & 0xFFFF | 3),
    )
