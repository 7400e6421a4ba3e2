"""One flaw for each thing that a rule looks for: the rules it must trip, how bad it is, and how to make it."""

from collections.abc import Callable
from dataclasses import replace

from exogdb.abi.check.facts import CpuFacts, Facts, SignatureParameter
from exogdb.abi.check.rule import Severity
from exogdb.abi.entry_path import EntryPath, Exit, GsAccess, Parameter, RegisterReturn
from exogdb.abi.location import InRegister
from exogdb.abi.symbolic import Flag, Gs
from exogdb.reading import Reading
from exogdb.x86.gdt import decode_gdt
from exogdb.x86.tss import Tss
from tests.unit.abi.check import sound
from tests.unit.abi.check.sound import (
    DATA,
    ENTRY,
    GDT,
    GS_BLOCK,
    TEXT,
    cpu_facts,
    hole,
    page,
    stack_top,
    with_call,
    with_cpu,
    with_exit,
    with_msr,
    with_page,
    with_path,
    with_register,
)

__all__ = ["FLAWS", "Change", "with_frame_structure"]

Change = Callable[[Facts], Facts]
FMASK = sound.MSRS["IA32_FMASK"]
ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def with_gdt(facts: Facts, slot: int, descriptor: int) -> Facts:
    descriptors = (*GDT[:slot], descriptor, *GDT[slot + 1 :])
    return with_cpu(facts, lambda cpu: replace(cpu, gdt=decode_gdt(sound.table(descriptors), 0xFFFFFFFF80300000)))


def with_ists(facts: Facts, ists: dict[int, int]) -> Facts:
    return with_cpu(facts, lambda cpu: replace(cpu, idt=sound.gates(ists)))


def with_kernel_rsp(facts: Facts, top: int, cpus: tuple[int, ...] = (0, 1)) -> Facts:
    return with_cpu(facts, lambda cpu: replace(cpu, kernel_rsp=Reading(top, "memory")), cpus)


def with_tss(
    facts: Facts, *, rsp0: int | None = None, ist2: int | None = None, cpus: tuple[int, ...] = (1,)
) -> Facts:
    def change(cpu: CpuFacts) -> CpuFacts:
        assert isinstance(cpu.tss, Tss)
        ist = (cpu.tss.ist[0], cpu.tss.ist[1] if ist2 is None else ist2, *cpu.tss.ist[2:])
        rsp = (cpu.tss.rsp[0] if rsp0 is None else rsp0, 0, 0)
        return replace(cpu, tss=replace(cpu.tss, rsp=rsp, ist=ist))

    return with_cpu(facts, change, cpus)


def with_image_page(facts: Facts, address: int, *, writable: bool, user: bool, nx: bool) -> Facts:
    changed = page(address, writable=writable, user=user, nx=nx)
    return replace(facts, image_pages={**facts.image_pages, address: changed})


def changed_exit(path: EntryPath, gs: Gs, **registers: RegisterReturn) -> Exit:
    return replace(path.exits[0], gs=gs, registers={**path.exits[0].registers, **registers})


def misaligned(facts: Facts, use: int | None) -> Facts:
    changed = with_call(facts, rsp_below_top=72)
    return replace(changed, entries=(replace(changed.entries[0], aligned_stack_use=use),))


def without_vc_stack(facts: Facts) -> Facts:
    """#VC comes only in guests with encrypted memory; Linux maps its stack only there."""
    return with_ists(facts, {1: 1, 2: 2, 8: 3, 18: 4, 29: 5})


def with_frame_structure(facts: Facts, fields: tuple[tuple[str, int], ...]) -> Facts:
    """A dispatcher that takes a pointer to the frame, and the structure that it sees there."""
    passed = (Parameter("rdi", "gs:[0x0]-0x40", None, frame_offset=0),)
    changed = with_call(facts, parameters=passed, number=None, arguments=(None,) * 6)
    signature = (SignatureParameter("frame", 8, is_pointer=True, fields=fields),)
    return replace(changed, entries=(replace(changed.entries[0], signature=signature),))


def wrong_frame_structure(facts: Facts) -> Facts:
    """r12 and r13 exchanged."""
    return with_frame_structure(facts, (("r15", 0), ("r14", 8), ("r12", 16), ("r13", 24), ("rcx", 56)))


def untested_return(facts: Facts) -> Facts:
    return with_path(facts, lambda path: replace(path, comparisons=()))


def sti_without_cli(facts: Facts) -> Facts:
    last = sound.state(sound.EXIT, "sysretq", after_dispatch=True, inside=False, IF=Flag.SET)
    return with_path(facts, lambda path: replace(path, states={**path.states, sound.EXIT: last}))


def as_in_the_seed(facts: Facts) -> Facts:
    """The stub exactly as the design prints it: `mov rcx, r10` is all that happens before the call."""
    users = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
    places = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
    parameters = tuple(Parameter(p, f"user {u}", u, None) for p, u in zip(places, users, strict=True))
    return with_call(
        facts,
        parameters=parameters,
        number=InRegister("rax"),
        arguments=tuple(map(InRegister, places)),
    )


def shared_stack(facts: Facts) -> Facts:
    return with_page(
        with_kernel_rsp(facts, stack_top(0, 0), (1,)), page(stack_top(0, 0) - 8, writable=True, nx=True)
    )


def shared_gs_block(facts: Facts) -> Facts:
    return with_cpu(
        facts,
        lambda cpu: replace(cpu, kernel_gs=cpu_facts(0).kernel_gs, pages={**cpu.pages, **cpu_facts(0).pages}),
    )


def on_amd(facts: Facts) -> Facts:
    return replace(facts, model=replace(facts.model, vendor="AuthenticAMD"))


FLAWS: dict[str, tuple[str, Severity, Change]] = {
    "SCE off on CPU 1": ("EXO001 EXO050", ERROR, lambda f: with_msr(f, "IA32_EFER", 0xD00, (1,))),
    "SCE off everywhere": ("EXO001", ERROR, lambda f: with_msr(f, "IA32_EFER", 0xD00)),
    "LSTAR not canonical": ("EXO002", ERROR, lambda f: with_msr(f, "IA32_LSTAR", 0x800000000000)),
    "LSTAR not mapped": ("EXO003", ERROR, lambda f: with_page(f, hole(ENTRY))),
    "LSTAR no-execute": ("EXO003", ERROR, lambda f: with_page(f, page(ENTRY, nx=True))),
    "LSTAR in a user page": ("EXO004", ERROR, lambda f: with_page(f, page(ENTRY, user=True))),
    "LSTAR in data": (
        "EXO005",
        ERROR,
        lambda f: replace(
            f,
            sections=(replace(TEXT, start=ENTRY + 0x1000), replace(DATA, start=ENTRY, end=ENTRY + 8)),
            image_pages={**f.image_pages, ENTRY: page(ENTRY, nx=True)},
        ),
    ),
    "LSTAR in no section": (
        "EXO005",
        WARNING,
        lambda f: replace(f, sections=(replace(TEXT, start=ENTRY + 0x1000), DATA)),
    ),
    "CSTAR 0": ("EXO006", NOTE, lambda f: with_msr(f, "IA32_CSTAR", 0)),
    "CSTAR 0 on AMD": ("EXO006", WARNING, lambda f: on_amd(with_msr(f, "IA32_CSTAR", 0))),
    "CSTAR 0 on AMD without 32-bit code": (
        "EXO006",
        NOTE,
        lambda f: with_gdt(on_amd(with_msr(f, "IA32_CSTAR", 0)), 3, 0),
    ),
    "CSTAR in a user page on AMD": (
        "EXO006",
        ERROR,
        lambda f: on_amd(with_page(f, page(sound.COMPATIBILITY_ENTRY, user=True))),
    ),
    "CSTAR not canonical on AMD": ("EXO006", ERROR, lambda f: on_amd(with_msr(f, "IA32_CSTAR", 1 << 47))),
    "IF left": ("EXO010", ERROR, lambda f: with_msr(f, "IA32_FMASK", FMASK & ~0x200)),
    "TF left, #DB on an IST stack": ("EXO011", WARNING, lambda f: with_msr(f, "IA32_FMASK", FMASK & ~0x100)),
    "TF left, #DB without IST stack": (
        "EXO011 EXO023",
        ERROR,
        lambda f: with_ists(with_msr(f, "IA32_FMASK", FMASK & ~0x100), {2: 2, 8: 3, 18: 4}),
    ),
    "DF left": ("EXO012", ERROR, lambda f: with_msr(f, "IA32_FMASK", FMASK & ~0x400)),
    "AC left with SMAP": ("EXO013", WARNING, lambda f: with_msr(f, "IA32_FMASK", FMASK & ~0x40000)),
    "NT left": ("EXO014", WARNING, lambda f: with_msr(f, "IA32_FMASK", FMASK & ~0x4000)),
    "SYSCALL CS is user code": ("EXO020", ERROR, lambda f: with_msr(f, "IA32_STAR", 0x001B_0028 << 32)),
    "SYSCALL SS not present": ("EXO020", ERROR, lambda f: with_gdt(f, 2, 0x00CF13000000FFFF)),
    "SYSRET base off by one": ("EXO021", ERROR, lambda f: with_msr(f, "IA32_STAR", 0x0023_0008 << 32)),
    "SYSRET CS is 32-bit": ("EXO021", ERROR, lambda f: with_gdt(f, 5, 0x00CFFB000000FFFF)),
    "STAR without RPL 3": ("EXO022", WARNING, lambda f: with_msr(f, "IA32_STAR", 0x0018_0008 << 32)),
    "STAR with RPL in the kernel's half": (
        "EXO022",
        WARNING,
        lambda f: with_msr(f, "IA32_STAR", 0x001B_000B << 32),
    ),
    "NMI without IST stack": ("EXO023", ERROR, lambda f: with_ists(f, {1: 1, 8: 3, 18: 4})),
    "#DF without IST stack": ("EXO023", WARNING, lambda f: with_ists(f, {1: 1, 2: 2, 18: 4})),
    "no NMI gate": (
        "EXO023",
        WARNING,
        lambda f: with_cpu(
            f,
            lambda cpu: replace(
                cpu, idt=tuple(replace(g, present=g.vector != 2) for g in sound.gates({1: 1, 8: 3, 18: 4}))
            ),
        ),
    ),
    "TR null": ("EXO024", ERROR, lambda f: with_register(f, "tr", 0)),
    "TR names a code segment": ("EXO024", ERROR, lambda f: with_register(f, "tr", 8)),
    "TSS too short": ("EXO024", ERROR, lambda f: with_gdt(f, 6, GDT[6] & ~0xFFFF | 0x40)),
    "no SWAPGS on entry": (
        "EXO030",
        ERROR,
        lambda f: with_path(
            f,
            lambda p: replace(
                p,
                gs_accesses=(GsAccess(ENTRY, 8, True, Gs.USER),),
                exits=(changed_exit(p, gs=Gs.KERNEL, rsp=RegisterReturn("leaked", "user gs:[0x8]")),),
            ),
        ),
    ),
    "no SWAPGS on exit": (
        "EXO030",
        ERROR,
        lambda f: with_path(f, lambda p: replace(p, exits=(replace(p.exits[0], gs=Gs.KERNEL),))),
    ),
    "push on the user's stack": (
        "EXO031",
        ERROR,
        lambda f: with_path(f, lambda p: replace(p, user_stack_uses=(ENTRY + 3,))),
    ),
    "misaligned call": ("EXO032", ERROR, lambda f: with_call(f, rsp_below_top=72)),
    "misaligned call, and code that needs better": ("EXO032", ERROR, lambda f: misaligned(f, ENTRY + 0x1000)),
    "misaligned call, and no code that minds": ("EXO032", NOTE, lambda f: misaligned(f, None)),
    "IST5 for #VC is 0": ("EXO042", NOTE, without_vc_stack),
    "the seed's stub": ("EXO033", ERROR, as_in_the_seed),
    "a frame structure in the wrong order": ("EXO033", ERROR, wrong_frame_structure),
    "SYSRET without a test": ("EXO034", WARNING, untested_return),
    "SYSRET without a test, last page mapped": (
        "EXO034",
        ERROR,
        lambda f: with_page(untested_return(f), page(0x7FFFFFFFF000, user=True)),
    ),
    "rdi leaks": ("EXO035", WARNING, lambda f: with_exit(f, rdi=RegisterReturn("leaked", "left in rdi"))),
    "rbx not restored": ("EXO036", WARNING, lambda f: with_exit(f, rbx=RegisterReturn("constant", "0"))),
    "rbx and rbp exchanged": (
        "EXO036",
        WARNING,
        lambda f: with_exit(
            f,
            rbx=RegisterReturn("restored", "", frame_offset=40),
            rbp=RegisterReturn("restored", "", frame_offset=32),
        ),
    ),
    "rsp not restored": ("EXO036", ERROR, lambda f: with_exit(f, rsp=RegisterReturn("constant", "0"))),
    "STI without CLI": ("EXO037", ERROR, sti_without_cli),
    "kernel rsp not mapped": (
        "EXO040",
        ERROR,
        lambda f: with_page(with_kernel_rsp(f, 0xFFFFFFFFDEAD0000, (1,)), hole(0xFFFFFFFFDEACFFF8)),
    ),
    "kernel rsp in a user page": (
        "EXO040",
        ERROR,
        lambda f: with_page(with_kernel_rsp(f, 0x500000, (1,)), page(0x4FFFF8, user=True, writable=True)),
    ),
    "kernel rsp 0 in user mode": ("EXO040", ERROR, lambda f: with_kernel_rsp(f, 0)),
    "RSP0 not mapped": (
        "EXO041",
        ERROR,
        lambda f: with_page(with_tss(f, rsp0=0xFFFFFFFFDEAD0000), hole(0xFFFFFFFFDEACFFF8)),
    ),
    "RSP0 not aligned": (
        "EXO041",
        WARNING,
        lambda f: with_page(with_tss(f, rsp0=stack_top(1, 0) - 24), page(stack_top(1, 0) - 32, writable=True)),
    ),
    "RSP0 0 in user mode": ("EXO041", ERROR, lambda f: with_tss(f, rsp0=0)),
    "IST2 read-only": ("EXO042", ERROR, lambda f: with_page(f, page(stack_top(1, 2) - 8), (1,))),
    "IST2 is 0": ("EXO042", ERROR, lambda f: with_tss(f, ist2=0)),
    "IST2 shared": (
        "EXO043",
        ERROR,
        lambda f: with_page(with_tss(f, ist2=stack_top(0, 2)), page(stack_top(0, 2) - 8, writable=True)),
    ),
    "kernel stack shared": ("EXO043", ERROR, shared_stack),
    "kernel stack left behind by a process that moved": (
        "EXO043",
        NOTE,
        lambda f: with_register(with_register(shared_stack(f), "cs", 8, (0,)), "rsp", 0xFFFFFFFFC0000000, (0,)),
    ),
    "GS block not mapped": ("EXO044", ERROR, lambda f: with_page(f, hole(GS_BLOCK), (0,))),
    "GS block in a user page": (
        "EXO044",
        ERROR,
        lambda f: with_page(f, page(GS_BLOCK, user=True, writable=True), (0,)),
    ),
    "GS block shared": ("EXO045", ERROR, shared_gs_block),
    "GS block shared, and the stack in it": ("EXO045", ERROR, lambda f: shared_stack(shared_gs_block(f))),
    "LSTAR differs": (
        "EXO050",
        ERROR,
        lambda f: with_page(with_msr(f, "IA32_LSTAR", ENTRY + 0x100, (1,)), page(ENTRY + 0x100)),
    ),
    "CSTAR differs": (
        "EXO050",
        WARNING,
        lambda f: with_page(with_msr(f, "IA32_CSTAR", ENTRY + 0x100, (1,)), page(ENTRY + 0x100)),
    ),
    "SMEP off": ("EXO060", WARNING, lambda f: with_register(f, "cr4", 0x2006F0)),
    "SMAP off": ("EXO061", WARNING, lambda f: with_register(f, "cr4", 0x1006F0)),
    "SMAP off on a CPU without it": (
        "EXO061",
        NOTE,
        lambda f: replace(
            with_register(f, "cr4", 0x1006F0), model=replace(f.model, features={"smep": True, "smap": False})
        ),
    ),
    "NXE off": ("EXO062", WARNING, lambda f: with_msr(f, "IA32_EFER", 0x501)),
    "WP off": ("EXO063", WARNING, lambda f: with_register(f, "cr0", 0x80000033)),
    "text writable": (
        "EXO064",
        WARNING,
        lambda f: with_image_page(f, TEXT.start, writable=True, user=False, nx=False),
    ),
    "text in a user page": (
        "EXO064",
        ERROR,
        lambda f: with_image_page(f, TEXT.start, writable=False, user=True, nx=False),
    ),
    "data executable": (
        "EXO065",
        WARNING,
        lambda f: with_image_page(f, DATA.start, writable=True, user=False, nx=False),
    ),
}
