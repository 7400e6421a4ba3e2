"""A machine of two CPUs that breaks no rule: the starting point of every test of a rule."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from exogdb.abi.check.facts import CpuFacts, CpuModel, EntryFacts, Facts, SignatureParameter, Span
from exogdb.abi.section import Section
from exogdb.abi.stub.entry_path import (
    Comparison,
    Dispatcher,
    EntryPath,
    Exit,
    FrameLayout,
    FrameSlot,
    GsAccess,
    KernelStack,
    Parameter,
    RegisterReturn,
    SwapGs,
)
from exogdb.abi.stub.location import InRegister, OnStack
from exogdb.abi.stub.stub_state import StubState
from exogdb.abi.stub.symbolic import Cell, Constant, Derived, Flag, Gs, Loaded
from exogdb.reading import Reading, Unavailable, Value
from exogdb.x86.gdt import decode_gdt
from exogdb.x86.idt import Gate, decode_idt
from exogdb.x86.page_scan import MappedPage
from exogdb.x86.paging import PageWalk
from exogdb.x86.tss import Tss

ENTRY = 0xFFFFFFFF80100000
COMPATIBILITY_ENTRY = 0xFFFFFFFF80100800
DISPATCHER = 0xFFFFFFFF80101000
CALL = ENTRY + 0x40
EXIT = ENTRY + 0x80
GS_BLOCK = 0xFFFFFFFF80200000
STACKS = 0xFFFFFFFFD0000000
PHYSICAL_MAP = 0xFFFF888000100000
TABLES = 0xFFFFFFFF80300000
TEXT = Section(".text", 0xFFFFFFFF80100000, 0xFFFFFFFF80102000, executable=True, writable=False)
DATA = Section(".data", 0xFFFFFFFF80200000, 0xFFFFFFFF80202000, executable=False, writable=True)
SECTIONS = (TEXT, DATA)

# Null, kernel code and data, 32-bit user code, user data, user code, TSS (two slots).
GDT = (
    0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF,
    0x8000890000000067 | 0x1000 << 16, 0xFFFFFFFF,
)  # fmt: skip
MSRS = {
    "IA32_EFER": 0xD01,
    "IA32_STAR": 0x001B000800000000,
    "IA32_LSTAR": ENTRY,
    "IA32_CSTAR": COMPATIBILITY_ENTRY,
    "IA32_FMASK": 0x257FD5,
    "IA32_SYSENTER_CS": 0,
    "IA32_SYSENTER_EIP": 0,
}
REGISTERS = {
    "cr0": 0x80010033,
    "cr3": 0x1000,
    "cr4": 0x300EF0,
    "rip": 0x401000,
    "cs": 0x2B,
    "tr": 0x30,
    "idtr.base": TABLES + 0x1000,
    "idtr.limit": 511,
}


def page(address: int, *, writable: bool = False, user: bool = False, nx: bool = False) -> PageWalk:
    """A mapped 4 KiB page."""
    return PageWalk(address, (), address & 0xFFFFF000, 4096, writable=writable, user=user, nx=nx)


def hole(address: int) -> PageWalk:
    """An address that is not mapped."""
    return PageWalk(address, (), None, 0, writable=False, user=False, nx=False, reason="PTE not present")


def table(descriptors: tuple[int, ...] = GDT) -> bytes:
    """A GDT as bytes."""
    return b"".join(descriptor.to_bytes(8, "little") for descriptor in descriptors)


def gates(ists: Mapping[int, int]) -> tuple[Gate, ...]:
    """An IDT of 32 interrupt gates with the given IST indexes."""
    raw = [0x8 << 16 | ists.get(vector, 0) << 32 | 0x8E << 40 | 0x1234 for vector in range(32)]
    return decode_idt(b"".join(gate.to_bytes(16, "little") for gate in raw))


# A physical map that leaves the text read-only, the text, a stack.
KERNEL_PAGES = (
    MappedPage(PHYSICAL_MAP, 0x1000, 0x100000, writable=False, user=False, nx=True),
    MappedPage(PHYSICAL_MAP + 0x1000, 0x1000, 0x101000, writable=False, user=False, nx=True),
    MappedPage(PHYSICAL_MAP + 0x200000, 0x200000, 0x200000, writable=True, user=False, nx=True),
    MappedPage(TEXT.start, 0x1000, 0x100000, writable=False, user=False, nx=False),
    MappedPage(TEXT.start + 0x1000, 0x1000, 0x101000, writable=False, user=False, nx=False),
    MappedPage(STACKS, 0x1000, 0x300000, writable=True, user=False, nx=True),
)


def readings(values: Mapping[str, int], source: str = "qmp") -> dict[str, Value]:
    """Each value as a reading."""
    return {name: Reading(value, source) for name, value in values.items()}


def stack_top(cpu: int, number: int) -> int:
    """Where stack `number` of `cpu` begins."""
    return STACKS + 0x10000 * (8 * cpu + number + 1)


def cpu_facts(index: int) -> CpuFacts:
    """A CPU in user mode: number 0 is its kernel stack, 1 to 4 are IST stacks."""
    tops = [stack_top(index, number) for number in range(5)]
    block = GS_BLOCK + 0x1000 * index
    pages: dict[int, PageWalk | Unavailable] = {top - 8: page(top - 8, writable=True, nx=True) for top in tops}
    pages |= {ENTRY: page(ENTRY), COMPATIBILITY_ENTRY: page(COMPATIBILITY_ENTRY)}
    for slot in (block, block + 8):
        pages[slot] = page(slot, writable=True, nx=True)
    pages |= {at: page(at, writable=True, nx=True) for at in (TABLES, TABLES + 0x1000, TABLES + 0x2000)}
    pages |= {0: hole(0), 0x7FFFFFFFF000: hole(0x7FFFFFFFF000)}
    return CpuFacts(
        index=index,
        registers=readings({**REGISTERS, "rsp": 0x7FFF0000}, "gdb"),
        msrs=readings(MSRS),
        gdt=decode_gdt(table(), TABLES),
        idt=gates({1: 1, 2: 2, 8: 3, 18: 4}),
        tss=Tss((tops[0], 0, 0), (tops[1], tops[2], tops[3], tops[4], 0, 0, 0), 104),
        kernel_gs=Reading(block, "gdb"),
        kernel_rsp=Reading(tops[0], "memory"),
        pages=pages,
        spans={"gdtr": Span(TABLES, 63), "idtr": Span(TABLES + 0x1000, 511), "tr": Span(TABLES + 0x2000, 103)},
        depths=dict.fromkeys(tops, 0x4000),
    )


SAVED = ("r15", "r14", "r13", "r12", "rbx", "rbp", "rflags", "rip")
TOP = Loaded(Cell("gs", None, 0))


def state(address: int, text: str, *, after_dispatch: bool, inside: bool = True, **flags: Flag) -> StubState:
    """One instruction of the stub; `inside`: on the kernel's stack, with the kernel's GS base."""
    gs, stack = (Gs.KERNEL, "kernel") if inside else (Gs.USER, "user")
    return StubState(address, bytes(4), text, after_dispatch, gs, stack, None, {}, flags=flags)


def exit_registers() -> dict[str, RegisterReturn]:
    """What a sound stub gives back."""
    cleared = ("rdi", "rsi", "rdx", "r8", "r9", "r10")
    registers = {name: RegisterReturn("constant", "0") for name in cleared}
    for number, name in enumerate(SAVED):
        registers[name] = RegisterReturn("restored", f"[gs:[0x0]-{64 - 8 * number:#x}]", frame_offset=8 * number)
    registers |= {"rcx": registers["rip"], "r11": registers["rflags"]}
    registers |= {
        "rsp": RegisterReturn("restored", "gs:[0x8]", gs_slot=8),
        "rax": RegisterReturn("result", "result"),
    }
    return registers


def sound_path() -> EntryPath:
    """An entry stub in the manner of the reference kernel that also tests rcx before SYSRET."""
    slots = tuple(FrameSlot(8 * n, name, f"user {name}", "push", ENTRY, ()) for n, name in enumerate(SAVED))
    arguments = ("rax", "rdi", "rsi", "rdx", "r10", "r8")
    passing = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
    rip = Loaded(Cell("memory", TOP, -8))
    return EntryPath(
        entry=ENTRY,
        swapgs=(SwapGs(ENTRY, Gs.USER, False), SwapGs(EXIT - 3, Gs.KERNEL, True)),
        gs_accesses=(GsAccess(ENTRY + 3, 8, True, Gs.KERNEL),),
        cr3_switches=(),
        comparisons=(
            Comparison(EXIT - 20, (Derived("shr", (rip, Constant(47))), Constant(0)), ENTRY + 0x200, True),
        ),
        user_stack_uses=(),
        user_rsp_slot=8,
        stack=KernelStack(TOP, 0, ENTRY + 12),
        frame=FrameLayout(slots, 64, 64),
        dispatcher=Dispatcher(
            address=DISPATCHER,
            target=hex(DISPATCHER),
            call_address=CALL,
            return_address=CALL + 5,
            rsp_below_top=80,
            realigned=False,
            parameters=tuple(
                Parameter(place, f"user {user}", user, None)
                for place, user in zip(passing, arguments, strict=True)
            ),
            number=InRegister("rdi"),
            arguments=(*map(InRegister, passing[1:]), OnStack(8)),
        ),
        exits=(Exit(EXIT, "sysret", Gs.USER, True, exit_registers()),),
        states={
            ENTRY: state(ENTRY, "swapgs", after_dispatch=False, inside=False),
            CALL: state(CALL, f"call {DISPATCHER:#x}", after_dispatch=False),
            EXIT: state(EXIT, "sysretq", after_dispatch=True, inside=False),
        },
        doubts=(),
        gs_saved={8: "rsp"},
        flow_in={ENTRY: [CALL], CALL: []},
        flow_out={CALL + 5: [EXIT - 20], EXIT - 20: [EXIT, ENTRY + 0x200], EXIT: [], ENTRY + 0x200: []},
    )


SIGNATURE = tuple(
    SignatureParameter(name, 8, is_pointer=False) for name in ("num", *(f"arg{n}" for n in range(1, 7)))
)


@cache
def sound_facts() -> Facts:
    """Two CPUs that run user code on a kernel without a flaw."""
    image = {address: page(address) for address in (TEXT.start, TEXT.start + 0x1000)}
    image |= {address: page(address, writable=True, nx=True) for address in (DATA.start, DATA.start + 0x1000)}
    return Facts(
        cpus=(cpu_facts(0), cpu_facts(1)),
        entries=(EntryFacts(ENTRY, (0, 1), sound_path(), SIGNATURE, Unavailable("not looked for")),),
        model=CpuModel("GenuineIntel", {"smep": True, "smap": True, "umip": True}),
        sections=SECTIONS,
        image_pages=image,
        kernel_pages=KERNEL_PAGES,
        names={ENTRY: "syscall_entry", DISPATCHER: "syscall_dispatch"},
    )


def with_cpu(facts: Facts, change: Callable[[CpuFacts], CpuFacts], cpus: tuple[int, ...] = (0, 1)) -> Facts:
    """The same machine with some of its CPUs changed."""
    return replace(facts, cpus=tuple(change(cpu) if cpu.index in cpus else cpu for cpu in facts.cpus))


def with_msr(facts: Facts, name: str, value: int, cpus: tuple[int, ...] = (0, 1)) -> Facts:
    """The same machine with another value in one MSR."""
    return with_cpu(facts, lambda cpu: replace(cpu, msrs={**cpu.msrs, name: Reading(value, "qmp")}), cpus)


def with_register(facts: Facts, name: str, value: int, cpus: tuple[int, ...] = (0, 1)) -> Facts:
    """The same machine with another value in one register."""
    return with_cpu(
        facts, lambda cpu: replace(cpu, registers={**cpu.registers, name: Reading(value, "gdb")}), cpus
    )


def with_page(facts: Facts, walk: PageWalk, cpus: tuple[int, ...] = (0, 1)) -> Facts:
    """The same machine with one address mapped in another way."""
    return with_cpu(facts, lambda cpu: replace(cpu, pages={**cpu.pages, walk.address: walk}), cpus)


def with_path(facts: Facts, change: Callable[[EntryPath], EntryPath]) -> Facts:
    """The same machine with another entry stub."""
    return replace(facts, entries=(replace(facts.entries[0], path=change(sound_path())),))


def with_call(facts: Facts, **changes: Any) -> Facts:
    """The same machine with an entry stub that calls the dispatcher in another way."""
    dispatcher = sound_path().dispatcher
    assert dispatcher is not None
    return with_path(facts, lambda path: replace(path, dispatcher=replace(dispatcher, **changes)))


def with_exit(facts: Facts, **registers: RegisterReturn) -> Facts:
    """The same machine with an entry stub that gives some registers back in another way."""
    changed = Exit(EXIT, "sysret", Gs.USER, True, {**exit_registers(), **registers})
    return with_path(facts, lambda path: replace(path, exits=(changed,)))
