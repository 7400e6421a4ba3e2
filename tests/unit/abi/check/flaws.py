"""One flaw for each thing that a rule looks for: the rules it must trip, how bad it is, and how to make it."""

from collections.abc import Callable
from dataclasses import replace

from exogdb.abi.check.facts import Facts
from exogdb.abi.check.rule import Severity
from exogdb.abi.stub.entry_path import GsAccess, RegisterReturn
from exogdb.abi.stub.symbolic import Gs
from exogdb.x86.gdt import decode_gdt
from tests.unit.abi.check import sound
from tests.unit.abi.check.changes import (
    as_in_the_seed,
    changed_exit,
    misaligned,
    on_amd,
    shared_gs_block,
    shared_stack,
    sti_without_cli,
    untested_return,
    with_call_gate,
    with_gate,
    with_gdt,
    with_gs_test,
    with_image_page,
    with_ists,
    with_kernel_page,
    with_kernel_rsp,
    with_long_gdt,
    with_machine_check,
    with_sysenter,
    with_tss,
    with_unguarded_idle_stack,
    with_user_tables,
    without_vc_stack,
    wrong_frame_structure,
)
from tests.unit.abi.check.sound import (
    DATA,
    ENTRY,
    GDT,
    GS_BLOCK,
    STACKS,
    TEXT,
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

__all__ = ["FLAWS", "Change"]

Change = Callable[[Facts], Facts]
FMASK = sound.MSRS["IA32_FMASK"]
ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


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
    "LSTAR 0": (
        "EXO005",
        ERROR,
        lambda f: with_page(with_msr(f, "IA32_LSTAR", 0), page(0)),
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
    "SYSENTER enabled, and leads nowhere": (
        "EXO008",
        ERROR,
        lambda f: with_sysenter(f, 0xFFFFFFFFDEAD0000),
    ),
    "SYSENTER enabled, and leads into a user page": (
        "EXO008",
        ERROR,
        lambda f: with_page(with_sysenter(f, 0x401000), page(0x401000, user=True)),
    ),
    "entry stub not in the user's page tables": ("EXO007", ERROR, lambda f: with_user_tables(f, ENTRY)),
    "slot not in the user's page tables": ("EXO007", ERROR, lambda f: with_user_tables(f, GS_BLOCK + 8)),
    "TSS not in the user's page tables": ("EXO007", ERROR, lambda f: with_user_tables(f, sound.TABLES + 0x2000)),
    "GDT in a user page": ("EXO025", ERROR, lambda f: with_page(f, page(sound.TABLES, user=True))),
    "limit of the GDT too large": ("EXO025", WARNING, with_long_gdt),
    "IDT not mapped": ("EXO025", ERROR, lambda f: with_page(f, hole(sound.TABLES + 0x1000))),
    "#GP open to INT n": ("EXO026", ERROR, lambda f: with_gate(f, 13, dpl=3)),
    "#DB open to INT n": ("EXO026", WARNING, lambda f: with_gate(f, 1, dpl=3)),
    "NMI open to INT n": ("EXO026", ERROR, lambda f: with_gate(f, 2, dpl=3)),
    "#BR open to INT n": ("EXO026", WARNING, lambda f: with_gate(f, 5, dpl=3)),
    "GS base asked for its sign": ("EXO038", ERROR, with_gs_test),
    "NMI shares IST3 with #DF": ("EXO046", WARNING, lambda f: with_gate(f, 2, ist=3)),
    "#MC shares IST1 with #DB": ("EXO046", WARNING, lambda f: with_machine_check(f, 1)),
    "IST2 is the kernel stack": ("EXO046", ERROR, lambda f: with_tss(f, ist2=stack_top(1, 0))),
    "no guard page": (
        "EXO047",
        WARNING,
        lambda f: with_cpu(f, lambda cpu: replace(cpu, depths=dict.fromkeys(cpu.depths))),
    ),
    "no guard page below what may be the idle loop's stack": ("EXO047", NOTE, with_unguarded_idle_stack),
    "stack writable and executable": ("EXO067", WARNING, lambda f: with_kernel_page(f, STACKS, nx=False)),
    "stack writable by programs": ("EXO068", ERROR, lambda f: with_kernel_page(f, STACKS, user=True)),
    "physical map readable by programs": (
        "EXO068",
        WARNING,
        lambda f: with_kernel_page(f, sound.PHYSICAL_MAP, user=True),
    ),
    "text writable in the physical map": (
        "EXO069",
        WARNING,
        lambda f: with_kernel_page(f, sound.PHYSICAL_MAP + 0x1000, writable=True),
    ),
    "UMIP off": ("EXO066", WARNING, lambda f: with_register(f, "cr4", 0x3006F0)),
    "GDT too short for STAR": (
        "EXO021 EXO024",
        ERROR,
        lambda f: with_cpu(f, lambda cpu: replace(cpu, gdt=decode_gdt(sound.table(GDT[:5]), sound.TABLES))),
    ),
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
    "call gate for programs": ("EXO027", ERROR, lambda f: with_call_gate(f, dpl=3)),
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
    "IDTR as after reset": (
        "EXO028",
        ERROR,
        lambda f: with_register(with_register(f, "idtr.base", 0), "idtr.limit", 0xFFFF),
    ),
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
    "SYSRET without a test, #GP on an IST stack": (
        "EXO034",
        NOTE,
        lambda f: with_gate(untested_return(f), 13, ist=3),
    ),
    "SYSRET without a test, #GP on an IST stack, last page mapped": (
        "EXO034",
        WARNING,
        lambda f: with_page(with_gate(untested_return(f), 13, ist=3), page(0x7FFFFFFFF000, user=True)),
    ),
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
        NOTE,
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
    "GS block not mapped": ("EXO044", ERROR, lambda f: with_page(f, hole(GS_BLOCK + 8), (0,))),
    "GS block in a user page": (
        "EXO044",
        ERROR,
        lambda f: with_page(f, page(GS_BLOCK + 8, user=True, writable=True), (0,)),
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
    "SMEP off": ("EXO060", WARNING, lambda f: with_register(f, "cr4", 0x200EF0)),
    "SMAP off": ("EXO061", WARNING, lambda f: with_register(f, "cr4", 0x100EF0)),
    "SMAP off on a CPU without it": (
        "EXO061",
        NOTE,
        lambda f: replace(
            with_register(f, "cr4", 0x100EF0),
            model=replace(f.model, features={"smep": True, "smap": False, "umip": True}),
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
