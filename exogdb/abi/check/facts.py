"""What the doctor looks at: everything that was read from the guest before the first rule runs.

Frozen, and free of I/O. A value that could not be read is an `Unavailable` with its reason. Rules take values
through the methods here, which raise `UnavailableError` with that reason, so that no rule can mistake a value
that is missing for one that is sound.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from exogdb.abi.section import Section
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.errors import UnavailableError
from exogdb.reading import Reading, Unavailable, Value
from exogdb.x86.address import linear_bits
from exogdb.x86.gdt import Gdt
from exogdb.x86.idt import Gate
from exogdb.x86.page_scan import MappedPage
from exogdb.x86.paging import PageWalk
from exogdb.x86.tss import Tss

__all__ = [
    "LARGEST_STACK",
    "PAGE",
    "CpuFacts",
    "CpuModel",
    "EntryFacts",
    "Facts",
    "SignatureParameter",
    "Span",
    "known",
]

PAGE = 4096
LARGEST_STACK = 1 << 18  # kernel stacks have 4 to 64 KiB

_T = TypeVar("_T")


def known(fact: _T | Unavailable) -> _T:
    """The fact itself.

    :raise UnavailableError: it could not be read; the reason is the one that was noted then.
    """
    if isinstance(fact, Unavailable):
        raise UnavailableError(fact.reason)
    return fact


@dataclass(frozen=True)
class Span:
    """A table that the CPU looks things up in: linear `base`, size less one."""

    base: int
    limit: int

    @property
    def pages(self) -> range:
        """The address of every 4 KiB page that it lies in."""
        return range(self.base & -PAGE, self.base + self.limit + 1, PAGE)


@dataclass(frozen=True)
class CpuFacts:
    """One CPU. Registers are by GDB's names (`cr4`, `rsp`, `cs`), and `tr`, `idtr.base`, `idtr.limit`; MSRs by the
    SDM's (`IA32_LSTAR`).

    `kernel_gs` is the GS base that the kernel uses, whether it is active or waiting; `kernel_rsp` is what the
    entry stub would load into rsp on this CPU now. `spans` says where the tables of `gdtr`, `idtr` and `tr` are,
    of those that the kernel has loaded.
    `pages` are page walks through the page tables that the kernel runs with, by linear address; `user_pages` the
    same for user programs if the stub switches page tables, else None. `depths` are by the top of a stack how many
    bytes below it can be written without a hole, None for more than `LARGEST_STACK`.
    """

    index: int
    registers: Mapping[str, Value]
    msrs: Mapping[str, Value]
    gdt: Gdt | Unavailable
    idt: tuple[Gate, ...] | Unavailable
    tss: Tss | Unavailable
    kernel_gs: Value
    kernel_rsp: Value
    pages: Mapping[int, PageWalk | Unavailable]
    spans: Mapping[str, Span] | Unavailable
    user_pages: Mapping[int, PageWalk | Unavailable] | Unavailable | None = None
    depths: Mapping[int, int | Unavailable | None] = field(default_factory=dict)

    def msr(self, name: str) -> int:
        """The value of an MSR.

        :raise UnavailableError: it was not read.
        """
        return _number(self.msrs.get(name), name)

    def register(self, name: str) -> int:
        """The value of a register.

        :raise UnavailableError: it was not read.
        """
        return _number(self.registers.get(name), name)

    @property
    def cpl(self) -> int:
        """The privilege level the CPU stands at, 0 to 3."""
        return self.register("cs") & 3

    @property
    def address_bits(self) -> int:
        """Width of a linear address: 57 with CR4.LA57, else 48."""
        return linear_bits(self.register("cr4"))

    def page(self, address: int) -> PageWalk:
        """The page walk of `address`.

        :raise UnavailableError: the page tables could not be read.
        """
        if address not in self.pages:
            raise UnavailableError(f"the page tables were not walked for {address:#x}")
        return known(self.pages[address])


@dataclass(frozen=True)
class SignatureParameter:
    """A parameter of the dispatcher as debug info describes it. `size` in bytes; `is_pointer`: to anything.

    `fields` are name and offset in bytes of what it points to, if that is a structure.
    """

    name: str
    size: int
    is_pointer: bool
    fields: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class EntryFacts:
    """What one value of IA32_LSTAR leads to, the CPUs that have it, and what debug info says of the dispatcher.

    `aligned_stack_use` is an instruction of the kernel that faults on a misaligned stack; None if there is none in
    the code behind the dispatcher's first instruction.
    """

    lstar: int
    cpus: tuple[int, ...]
    path: EntryPath | Unavailable
    signature: tuple[SignatureParameter, ...] | Unavailable
    aligned_stack_use: int | Unavailable | None


@dataclass(frozen=True)
class CpuModel:
    """What the virtual CPU can do. `vendor` is CPUID's, such as `GenuineIntel`; `features` by lower-case name."""

    vendor: str | Unavailable
    features: Mapping[str, bool | Unavailable] = field(default_factory=dict)

    def has(self, feature: str) -> bool:
        """Whether the CPU has `feature` (`smep`, `smap`, `nx`).

        :raise UnavailableError: nobody could tell.
        """
        return known(self.features.get(feature, Unavailable(f"nobody could tell whether the CPU has {feature}")))


@dataclass(frozen=True)
class Facts:
    """Everything about one stopped guest. `cpus` are those in long mode, `left_out` the indexes of the others: a
    kernel may not have started them. `image_pages` are page walks of the kernel image's pages, by address;
    `kernel_pages` all pages of the upper half, in address order.

    `gs_tests` are by the address of an exception's handler the instruction that reads the active GS base there, to
    decide by its sign whose it is; None where there is none. Only looked for where programs can set that base.
    """

    cpus: tuple[CpuFacts, ...]
    entries: tuple[EntryFacts, ...]
    model: CpuModel
    sections: tuple[Section, ...] | Unavailable
    image_pages: Mapping[int, PageWalk | Unavailable]
    kernel_pages: tuple[MappedPage, ...] | Unavailable
    names: Mapping[int, str] = field(default_factory=dict)
    gs_tests: Mapping[int, int | Unavailable | None] = field(default_factory=dict)
    left_out: tuple[int, ...] = ()

    def path_of(self, cpu: CpuFacts) -> EntryPath:
        """The entry path behind the LSTAR of `cpu`.

        :raise UnavailableError: LSTAR, or the code there, could not be read or understood.
        """
        for entry in self.entries:
            if cpu.index in entry.cpus:
                return known(entry.path)
        raise UnavailableError(f"the entry path of CPU {cpu.index} is not known")

    def name(self, address: int) -> str:
        """`symbol+offset` with the address, or the address alone."""
        return f"{address:#x} ({self.names[address]})" if address in self.names else f"{address:#x}"


def _number(value: Value | None, name: str) -> int:
    match value:
        case Reading(number):
            return number
        case Unavailable(reason):
            raise UnavailableError(f"{name} is unavailable: {reason}")
        case None:
            raise UnavailableError(f"{name} was not read")
