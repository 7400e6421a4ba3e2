"""The sound machine with one thing changed: what flaws are made of."""

from dataclasses import replace

from exogdb.abi.check.facts import CpuFacts, Facts, SignatureParameter, Span
from exogdb.abi.check.isolation import entry_addresses
from exogdb.abi.stub.entry_path import Cr3Switch, EntryPath, Exit, Parameter, RegisterReturn
from exogdb.abi.stub.location import InRegister
from exogdb.abi.stub.symbolic import Cell, Flag, Gs, Loaded
from exogdb.reading import Reading, Unavailable
from exogdb.x86.gdt import decode_gdt
from exogdb.x86.tss import Tss
from tests.unit.abi.check import sound
from tests.unit.abi.check.sound import (
    ENTRY,
    GDT,
    cpu_facts,
    hole,
    page,
    stack_top,
    with_call,
    with_cpu,
    with_msr,
    with_page,
    with_path,
    with_register,
)


def with_gdt(facts: Facts, slot: int, descriptor: int) -> Facts:
    descriptors = (*GDT[:slot], descriptor, *GDT[slot + 1 :])
    return with_cpu(facts, lambda cpu: replace(cpu, gdt=decode_gdt(sound.table(descriptors), sound.TABLES)))


def with_call_gate(facts: Facts, *, dpl: int) -> Facts:
    """One more descriptor at the end of the GDT: a call gate to the entry stub."""
    low = ENTRY & 0xFFFF | 0x08 << 16 | (0x8C | dpl << 5) << 40 | (ENTRY >> 16 & 0xFFFF) << 48
    table = sound.table((*GDT, low, ENTRY >> 32))
    return with_cpu(facts, lambda cpu: replace(cpu, gdt=decode_gdt(table, sound.TABLES)))


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


def with_user_tables(facts: Facts, *missing: int) -> Facts:
    """A stub that switches page tables, and user tables in which `missing` is not mapped."""

    def change(path: EntryPath) -> EntryPath:
        switch = Cr3Switch(ENTRY + 8, Loaded(Cell("gs", None, 0x40)), False)
        return replace(path, cr3_switches=(switch,))

    changed = with_path(facts, change)
    [entry] = changed.entries
    assert isinstance(entry.path, EntryPath)
    wanted = {cpu.index: entry_addresses(cpu, entry.path) for cpu in changed.cpus}
    return with_cpu(
        changed,
        lambda cpu: replace(
            cpu, user_pages={at: hole(at) if at in missing else page(at) for at in wanted[cpu.index]}
        ),
    )


def with_unguarded_idle_stack(facts: Facts) -> Facts:
    """CPU 0 runs no program, and the stack in its slot has no end."""
    top = stack_top(2, 0)
    changed = with_page(with_kernel_rsp(facts, top, (0,)), page(top - 8, writable=True), (0,))
    unguarded = with_cpu(changed, lambda cpu: replace(cpu, depths={**cpu.depths, top: None}), (0,))
    return with_register(unguarded, "cs", 8, (0,))


def with_gate(facts: Facts, vector: int, **changes: int) -> Facts:
    def change(cpu: CpuFacts) -> CpuFacts:
        assert not isinstance(cpu.idt, Unavailable)
        gates = (replace(gate, **changes) if gate.vector == vector else gate for gate in cpu.idt)  # type: ignore[arg-type]
        return replace(cpu, idt=tuple(gates))

    return with_cpu(facts, change)


def with_machine_check(facts: Facts, ist: int) -> Facts:
    """CR4.MCE on, and #MC on an IST stack that another gate has, too."""
    return with_register(with_gate(facts, 18, ist=ist), "cr4", 0x300EF0 | 1 << 6)


def with_gs_test(facts: Facts) -> Facts:
    """CR4.FSGSBASE on, and an NMI handler that asks for the sign of the GS base."""
    changed = with_register(with_gate(facts, 2, handler=ENTRY + 0x400), "cr4", 0x310EF0)
    return replace(changed, gs_tests={0x1234: None, ENTRY + 0x400: ENTRY + 0x420})


def with_kernel_page(facts: Facts, address: int, **rights: bool) -> Facts:
    """The same machine with other rights for one page of the kernel's half."""
    assert not isinstance(facts.kernel_pages, Unavailable)
    pages = tuple(each._replace(**rights) if each.address == address else each for each in facts.kernel_pages)
    return replace(facts, kernel_pages=pages)


def with_long_gdt(facts: Facts) -> Facts:
    """A GDT whose limit goes on into a page that is not mapped."""
    start = sound.TABLES + 0x10000

    def change(cpu: CpuFacts) -> CpuFacts:
        assert not isinstance(cpu.spans, Unavailable)
        return replace(cpu, spans={**cpu.spans, "gdtr": Span(start, 0x1FFF)})

    return with_page(with_page(with_cpu(facts, change), hole(start + 0x1000)), page(start, nx=True))


def with_sysenter(facts: Facts, entry: int) -> Facts:
    changed = with_msr(with_msr(facts, "IA32_SYSENTER_CS", 8), "IA32_SYSENTER_EIP", entry)
    return with_page(changed, hole(entry))


def on_amd(facts: Facts) -> Facts:
    return replace(facts, model=replace(facts.model, vendor="AuthenticAMD"))
