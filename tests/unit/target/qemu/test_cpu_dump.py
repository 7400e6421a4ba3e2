"""`info registers -a` as QEMU 7.2 prints it."""

import pytest

from exogdb.errors import FormatError
from exogdb.target.qemu.cpu_dump import parse_cpu_dumps

DUMP = """
CPU#0
RAX=0000000000000000 RBX=0000000000000000 RCX=0000000000000000 RDX=0000000000000000
RIP=ffffffff80100123 RFL=00000246 [---Z-P-] CPL=0 II=1 A20=1 SMM=0 HLT=0
ES =0000 0000000000000000 00000000 00000000
CS =0008 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
SS =0010 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
DS =0000 0000000000000000 00000000 00000000
FS =0000 0000000000000000 00000000 00000000
GS =0000 ffffffff8010c000 00000000 00000000
LDT=0000 0000000000000000 0000ffff 00008200 DPL=0 LDT
TR =0028 ffffffff8010a000 00000067 00008b00 DPL=0 TSS64-busy
GDT=     ffffffff8010a080 00000037
IDT=     ffffffff8010b000 00000fff
CR0=80010011 CR2=0000000000000000 CR3=0000000000101000 CR4=00000020

CPU#1
EAX=00000000 EBX=00000000 ECX=00000000 EDX=00060fb1
EIP=0000fff0 EFL=00000002 [-------] CPL=3 II=0 A20=1 SMM=0 HLT=1
ES =0000 00000000 0000ffff 00009300
CS =f000 ffff0000 0000ffff 00009b00
SS =0000 00000000 0000ffff 00009300
DS =0000 00000000 0000ffff 00009300
FS =0000 00000000 0000ffff 00009300
GS =0000 00000000 0000ffff 00009300
LDT=0000 00000000 0000ffff 00008200
TR =0000 00000000 0000ffff 00008b00
GDT=     00000000 0000ffff
IDT=     00000000 0000ffff
"""


def test_both_forms_of_the_dump() -> None:
    first, second = parse_cpu_dumps(DUMP.replace("\n", "\r\n")).values()
    assert (first.index, first.cpl, first.halted, first.interrupts_inhibited) == (0, 0, False, True)
    assert (first.segments["tr"].base, first.segments["tr"].limit) == (0xFFFFFFFF8010A000, 0x67)
    assert (first.segments["gdtr"].base, first.segments["gdtr"].limit) == (0xFFFFFFFF8010A080, 0x37)
    assert first.segments["idtr"].limit == 0xFFF
    assert first.segments["cs"].flags == 0x00AF9B00
    assert (second.index, second.cpl, second.halted) == (1, 3, True)
    assert second.segments["cs"].base == 0xFFFF0000


def test_what_is_missing_is_refused_with_its_name() -> None:
    with pytest.raises(FormatError, match="idtr of CPU 0"):
        parse_cpu_dumps(DUMP.replace("IDT=", "XXX=", 1))
    with pytest.raises(FormatError, match="CPL and HLT for CPU 1"):
        parse_cpu_dumps(DUMP.replace("HLT=1", ""))
    with pytest.raises(FormatError, match="does not know"):
        parse_cpu_dumps("unknown command: 'info registers -a'\n")
