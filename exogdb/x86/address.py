"""Canonical linear addresses: the bits above the implemented width repeat the top implemented bit.

A non-canonical RCX at SYSRET raises #GP, on Intel still at CPL 0, on AMD in the program after the return.

WRMSR raises #GP for an LSTAR or a base that is not canonical, but it does not ask CR4.LA57: a CPU that has
57-bit addresses accepts all of them, also while 4-level paging translates 48 bits. So LSTAR can hold an address
that no fetch can use, and the #GP comes at the first SYSCALL, at CPL 0 on the user's stack. LGDT, LIDT, LLDT and
LTR check bases in the same way.

Source: Intel SDM Vol. 1, Canonical Addressing; Vol. 3A, Paging (57 bits with CR4.LA57); Linux, arch/x86/kvm/x86.h,
is_noncanonical_address() (what checks by the CPU and what by CR4).
"""

__all__ = ["CR4_LA57", "canonical_form", "is_canonical", "is_upper_half", "linear_bits"]

CR4_LA57 = 1 << 12


def linear_bits(cr4: int) -> int:
    """How many bits of a linear address are translated: 57 with CR4.LA57, else 48.

    >>> linear_bits(0x20), linear_bits(0x1020)
    (48, 57)
    """
    return 57 if cr4 & CR4_LA57 else 48


def canonical_form(address: int, bits: int = 48) -> int:
    """The canonical address with the same low `bits` bits.

    >>> hex(canonical_form(0x800000000000))
    '0xffff800000000000'
    """
    low = address & (1 << bits) - 1
    return low | (1 << 64) - (1 << bits) if low >> bits - 1 else low


def is_canonical(address: int, bits: int = 48) -> bool:
    """Whether the 64-bit `address` can be used at all.

    >>> is_canonical(0x7FFFFFFFFFFF), is_canonical(0x800000000000), is_canonical(0x800000000000, 57)
    (True, False, True)
    """
    return canonical_form(address, bits) == address


def is_upper_half(address: int) -> bool:
    """Bit 63 is set: where kernels live by convention. The CPU attaches no privilege to it."""
    return bool(address >> 63 & 1)
