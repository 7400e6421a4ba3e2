"""The interrupt descriptor table of long mode: 16-byte gates.

::

    127    96 95          64 63          48 47 46 45 44 43  40 39   35 34 32 31      16 15        0
    +--------+--------------+--------------+--+-----+--+------+-------+-----+----------+-----------+
    | resvd  | offset 63:32 | offset 31:16 |P | DPL |0 | type | resvd | IST | selector |offset 15:0|
    +--------+--------------+--------------+--+-----+--+------+-------+-----+----------+-----------+

DPL is compared with CPL for INT n, INT3 and INTO alone. Exceptions and interrupts pass any gate, and so does
INT1 (one byte, f1), by which a program raises #DB through a gate with DPL 0.

Source: Intel SDM Vol. 3A, 64-Bit Mode IDT, and Exception and Interrupt Vectors; Vol. 2A, INT n/INTO/INT3/INT1;
AMD APM Vol. 2, Gate Descriptors.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from exogdb.errors import FormatError
from exogdb.x86.address import is_canonical
from exogdb.x86.descriptor import CodeDescriptor, Descriptor
from exogdb.x86.selector import Selector
from exogdb.x86.tss import Tss

__all__ = [
    "EXCEPTIONS",
    "CpuException",
    "Gate",
    "check_gate",
    "decode_gate",
    "decode_idt",
    "is_idt_unset",
    "vector_name",
]

GATE_SIZE = 16
GATE_TYPES = {0xE: "interrupt", 0xF: "trap"}
# Base and limit of IDTR after power-up, reset and INIT (SDM Vol. 3A, Processor State After Reset), and as firmware
# has it for real mode, where vectors are four bytes.
NEVER_LOADED = {(0, 0xFFFF), (0, 0x3FF)}


@dataclass(frozen=True)
class CpuException:
    """An exception that the CPU defines. `pushes_error`: it pushes an error code below the frame."""

    mnemonic: str
    name: str
    pushes_error: bool = False


EXCEPTIONS: Mapping[int, CpuException] = {
    0: CpuException("#DE", "divide error"),
    1: CpuException("#DB", "debug"),
    2: CpuException("NMI", "non-maskable interrupt"),
    3: CpuException("#BP", "breakpoint"),
    4: CpuException("#OF", "overflow"),
    5: CpuException("#BR", "bound range exceeded"),
    6: CpuException("#UD", "invalid opcode"),
    7: CpuException("#NM", "device not available"),
    8: CpuException("#DF", "double fault", pushes_error=True),
    10: CpuException("#TS", "invalid TSS", pushes_error=True),
    11: CpuException("#NP", "segment not present", pushes_error=True),
    12: CpuException("#SS", "stack fault", pushes_error=True),
    13: CpuException("#GP", "general protection", pushes_error=True),
    14: CpuException("#PF", "page fault", pushes_error=True),
    16: CpuException("#MF", "x87 floating point"),
    17: CpuException("#AC", "alignment check", pushes_error=True),
    18: CpuException("#MC", "machine check"),
    19: CpuException("#XM", "SIMD floating point"),
    20: CpuException("#VE", "virtualization"),
    21: CpuException("#CP", "control protection", pushes_error=True),
    28: CpuException("#HV", "hypervisor injection (AMD)"),
    29: CpuException("#VC", "VMM communication (AMD)", pushes_error=True),
    30: CpuException("#SX", "security (AMD)", pushes_error=True),
}


def vector_name(vector: int) -> str:
    """The mnemonic of an exception, `reserved` below 32, else `interrupt`.

    >>> vector_name(14), vector_name(9), vector_name(0x80)
    ('#PF', 'reserved', 'interrupt')
    """
    if vector in EXCEPTIONS:
        return EXCEPTIONS[vector].mnemonic
    return "reserved" if vector < 32 else "interrupt"


@dataclass(frozen=True)
class Gate:
    """One entry of the IDT. `ist` is 0 (no stack switch of its own) or 1 to 7; `handler` a linear address."""

    vector: int
    raw: int
    handler: int
    selector: Selector
    ist: int
    type: int
    dpl: int
    present: bool

    @property
    def kind(self) -> str:
        """`interrupt` (IF is cleared on entry), `trap` (IF stays), or the type that long mode does not
        allow.
        """
        return GATE_TYPES.get(self.type, f"reserved type {self.type:#x}")

    @property
    def name(self) -> str:
        """The vector by name."""
        return vector_name(self.vector)


def decode_gate(data: bytes, vector: int) -> Gate:
    """The gate in exactly 16 little-endian bytes.

    :raise FormatError: another length.
    """
    if len(data) != GATE_SIZE:
        raise FormatError(f"an IDT gate has {GATE_SIZE} bytes, got {len(data)}")
    raw = int.from_bytes(data, "little")
    return Gate(
        vector=vector,
        raw=raw,
        handler=raw & 0xFFFF | (raw >> 48 & 0xFFFF) << 16 | (raw >> 64 & 0xFFFFFFFF) << 32,
        selector=Selector(raw >> 16 & 0xFFFF),
        ist=raw >> 32 & 7,
        type=raw >> 40 & 0x1F,
        dpl=raw >> 45 & 3,
        present=bool(raw >> 47 & 1),
    )


def decode_idt(data: bytes) -> tuple[Gate, ...]:
    """Every whole gate in `data`, from vector 0. The CPU uses at most 256 of them.

    >>> [gate.present for gate in decode_idt(bytes(40))]
    [False, False]
    """
    count = min(len(data) // GATE_SIZE, 256)
    return tuple(decode_gate(data[n * GATE_SIZE : (n + 1) * GATE_SIZE], n) for n in range(count))


def is_idt_unset(base: int, limit: int) -> bool:
    """Whether IDTR still has what reset or the firmware left: no kernel has executed LIDT, and no table is there.

    An IDT at address 0 is possible; its limit is then that of 256 gates or fewer.

    >>> is_idt_unset(0, 0xFFFF), is_idt_unset(0, 0xFFF)
    (True, False)
    """
    return (base, limit) in NEVER_LOADED


def check_gate(
    gate: Gate, descriptor: Descriptor | None, tss: Tss | None, address_bits: int = 48
) -> tuple[str, ...]:
    """What is wrong with a present gate, one sentence each.

    `descriptor` is what its selector names, None outside the GDT; `tss` is None while TR is null; `address_bits`
    is how many bits of a linear address are translated.
    """
    findings = []
    if gate.type not in GATE_TYPES:
        findings.append(f"{gate.kind}: long mode allows interrupt and trap gates only")
    if not is_canonical(gate.handler, address_bits):
        findings.append(f"the handler {gate.handler:#x} is not canonical with {address_bits}-bit linear addresses")
    if gate.selector.in_ldt:
        findings.append(f"the selector {gate.selector} is one of the LDT, which was not looked at")
    elif not (isinstance(descriptor, CodeDescriptor) and descriptor.long and descriptor.present):
        findings.append(f"the selector {gate.selector} is no present 64-bit code segment")
    elif descriptor.conforming:
        findings.append("its code segment is conforming: the handler runs at the CPL that was interrupted")
    elif descriptor.dpl:
        findings.append(f"its code segment has DPL {descriptor.dpl}: #GP when it arrives at a lower CPL")
    if gate.ist and tss is None:
        findings.append(f"IST{gate.ist} is named, and there is no TSS: TR is null")
    elif gate.ist and tss is not None and tss.stack_for(gate.ist) == 0:
        findings.append(f"IST{gate.ist} of the TSS is 0: the CPU would push to the top of the address space")
    return tuple(findings)
