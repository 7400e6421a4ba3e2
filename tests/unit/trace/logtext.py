"""Writes the text of QEMU's execution log, for the tests of what reads it.

The form is that of data/execlog-qemu-7.2.txt, which QEMU 7.2.22 wrote.
"""

from dataclasses import dataclass

__all__ = ["ENTRY", "RETURN", "Dump", "announce"]

ENTRY = 0xFFFFFFFF80100000
RETURN = 0xFFFFFFFF80100040


@dataclass(frozen=True)
class Dump:
    """One register dump. Registers that no test looks at are zero."""

    rip: int = ENTRY
    rax: int = 0
    rdi: int = 0
    rsi: int = 0
    rdx: int = 0
    r10: int = 0
    r8: int = 0
    r9: int = 0
    rcx: int = 0
    rsp: int = 0
    rbx: int = 0
    fs_base: int = 0
    cr3: int = 0x1000
    task: int = 0

    @property
    def text(self) -> bytes:
        """The dump as QEMU prints it."""
        return (
            f"RAX={self.rax:016x} RBX={self.rbx:016x} RCX={self.rcx:016x} RDX={self.rdx:016x}\n"
            f"RSI={self.rsi:016x} RDI={self.rdi:016x} RBP={0:016x} RSP={self.rsp:016x}\n"
            f"R8 ={self.r8:016x} R9 ={self.r9:016x} R10={self.r10:016x} R11={0x202:016x}\n"
            f"R12={0:016x} R13={0:016x} R14={0:016x} R15={0:016x}\n"
            f"RIP={self.rip:016x} RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0\n"
            f"{self._segments()}"
            f"GDT=     {0:016x} 0000003f\nIDT=     {0:016x} 000003ff\n"
            f"CR0=80010033 CR2={0:016x} CR3={self.cr3:016x} CR4=00000620\n"
            f"DR0={0:016x} DR1={0:016x} DR2={0:016x} DR3={0:016x} \nDR6=00000000ffff0ff0 DR7=0000000000000400\n"
            f"CCS={0:016x} CCD={0:016x} CCO=EFLAGS\nEFER=0000000000000501\n"
        ).encode()

    def _segments(self) -> str:
        bases = {"ES": 0, "CS": 0, "SS": 0, "DS": 0, "FS": self.fs_base, "GS": 0, "LDT": 0, "TR": self.task}
        return "".join(f"{name:<3}=0000 {base:016x} ffffffff 00cf1300\n" for name, base in bases.items())


def announce(cpu: int, address: int) -> bytes:
    """The `Trace` line that `exec` adds before a dump."""
    return f"Trace {cpu}: 0x7f3fec18af40 [{0:016x}/{address:016x}/0040c2b0/ff000200] \n".encode()
