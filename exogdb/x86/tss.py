"""The 64-bit task state segment: the stacks that the CPU switches to by itself.

::

    0x00 reserved    0x04 RSP0   0x0c RSP1   0x14 RSP2   0x1c reserved
    0x24 IST1  0x2c IST2 ... 0x54 IST7   0x5c reserved   0x66 u16 I/O map base   (104 bytes)

RSP0 is loaded when an interrupt or exception arrives at CPL 3 through a gate without an IST; with one, that
stack is loaded at any CPL. SYSCALL uses neither. RSP1 and RSP2 are for rings that nothing enters in practice,
and so free for other use: Linux keeps the user's rsp of a system call in RSP2.

None of these need be a multiple of 16: in long mode the CPU aligns rsp down before it pushes a frame. There is
no SS here: a change of privilege loads SS with the null selector, whose RPL is the new CPL; an IST without one
keeps SS.

Source: Intel SDM Vol. 3A, Task Management in 64-bit Mode, 64-Bit Mode Stack Frame, and Stack Switching in IA-32e
Mode; AMD APM Vol. 2, 64-Bit Task State Segment.
"""

import struct
from dataclasses import dataclass

from exogdb.errors import FormatError

__all__ = ["TSS_SIZE", "Tss", "decode_tss"]

TSS_SIZE = 104


@dataclass(frozen=True)
class Tss:
    """`rsp` has RSP0 to RSP2; `ist` has IST1 to IST7 at positions 0 to 6; addresses are linear.

    `iomap_base` is the offset in bytes of the I/O permission map from the start of the TSS.
    """

    rsp: tuple[int, int, int]
    ist: tuple[int, int, int, int, int, int, int]
    iomap_base: int

    def stack_for(self, ist: int) -> int:
        """The stack of IST number `ist`, 1 to 7; RSP0 for 0."""
        return self.ist[ist - 1] if ist else self.rsp[0]


def decode_tss(data: bytes) -> Tss:
    """The first 104 bytes of a TSS, little-endian.

    :raise FormatError: fewer bytes.

    >>> rsp0 = (0xFFFF800000001000).to_bytes(8, "little")
    >>> hex(decode_tss(bytes(4) + rsp0 + bytes(92)).rsp[0])
    '0xffff800000001000'
    """
    if len(data) < TSS_SIZE:
        raise FormatError(f"a 64-bit TSS has {TSS_SIZE} bytes, got {len(data)}")
    words = struct.unpack_from("<4x3Q8x7Q10xH", data)
    return Tss(rsp=words[:3], ist=words[3:10], iomap_base=words[10])
