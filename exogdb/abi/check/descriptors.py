"""Rules about the tables that STAR, the TSS and the IDT have to agree with: the live GDT, TR, the gates."""

from collections.abc import Iterator

from exogdb.abi.check.facts import CpuFacts, Facts, known
from exogdb.abi.check.rule import Finding, Outcome, Rule, Severity, each_cpu
from exogdb.abi.check.sysret import may_use_sysret, returns_to_32_bit
from exogdb.errors import UnavailableError
from exogdb.x86.descriptor import CallGate, SystemDescriptor
from exogdb.x86.idt import is_idt_unset, vector_name
from exogdb.x86.selector import Selector
from exogdb.x86.star import StarLoad, check_load, decode_star
from exogdb.x86.tss import TSS_SIZE

__all__ = ["DESCRIPTOR_RULES", "window_vectors"]

CR4_MCE = 1 << 6
DEBUG, NMI, DOUBLE_FAULT, MACHINE_CHECK = 1, 2, 8, 18


def _check_loads(cpu: CpuFacts, loads: list[StarLoad]) -> Iterator[Finding]:
    gdt = known(cpu.gdt)
    for load in loads:
        descriptor = None if load.selector.is_null else gdt.find_descriptor(load.selector)
        if load.selector.in_ldt:
            problems = ["names the LDT"]
        elif load.selector.is_null:
            problems = ["is a null selector"]
        else:
            problems = check_load(load, descriptor)
        if problems:
            kind = "64-bit code" if load.bits == 64 else "32-bit code"
            yield Finding(
                found=f"{load.instruction} loads {load.register} = {load.selector}, which " + ", ".join(problems),
                expected=f"a present {kind if load.register == 'CS' else 'writable data'} segment, DPL {load.dpl}",
                where="IA32_STAR and the GDT",
                address=gdt.base + load.selector.offset,
                cpu=cpu.index,
            )


def _check_syscall_selectors(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    loads = decode_star(cpu.msr("IA32_STAR")).loads
    yield from _check_loads(cpu, [load for load in loads if load.instruction == "SYSCALL"])


def _uses_sysret(cpu: CpuFacts, facts: Facts) -> bool:
    """A kernel that returns by IRETQ alone may have anything in STAR[63:48]."""
    try:
        return may_use_sysret(facts.path_of(cpu))
    except UnavailableError:
        return True


def _check_sysret_selectors(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
    if not _uses_sysret(cpu, facts):
        return
    loads = decode_star(cpu.msr("IA32_STAR")).loads
    yield from _check_loads(cpu, [load for load in loads if load.instruction in ("SYSRETQ", "SYSRETQ/L")])
    narrow = list(_check_loads(cpu, [load for load in loads if load.instruction == "SYSRETL"]))
    # A kernel that never returns to 32-bit code may have anything in that slot.
    if narrow and returns_to_32_bit(facts.path_of(cpu)):
        yield from narrow


def _check_rpl(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
    star = decode_star(cpu.msr("IA32_STAR"))
    if star.syscall_ss.rpl:
        yield Finding(
            f"STAR[47:32] has RPL {star.syscall_ss.rpl}: SYSCALL clears it in CS, not in SS = {star.syscall_ss}",
            "RPL 0 in STAR[47:32]",
            "IA32_STAR",
            cpu=cpu.index,
        )
    if star.sysret_ss_amd.rpl != 3 and _uses_sysret(cpu, facts):
        yield Finding(
            f"STAR[63:48] has RPL {star.sysret_ss_amd.rpl}: on AMD SYSRET leaves SS = {star.sysret_ss_amd}",
            "RPL 3 in STAR[63:48]",
            "IA32_STAR",
            cpu=cpu.index,
        )


def _check_ist(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    gates = known(cpu.idt)
    for vector in window_vectors(cpu):
        gate = gates[vector] if vector < len(gates) else None
        if gate is None or not gate.present:
            yield _gate_finding(cpu, vector, f"the IDT has no gate for {vector_name(vector)}", Severity.WARNING)
        elif gate.ist == 0:
            severity = Severity.ERROR if vector == NMI else Severity.WARNING
            yield _gate_finding(cpu, vector, f"the gate of {gate.name} has no IST stack", severity)


def window_vectors(cpu: CpuFacts) -> tuple[int, ...]:
    """What can arrive between SYSCALL and the stack switch whatever FMASK says. Without CR4.MCE a machine
    check shuts the CPU down instead of raising #MC."""
    always = (DEBUG, NMI, DOUBLE_FAULT)
    try:
        return (*always, MACHINE_CHECK) if cpu.register("cr4") & CR4_MCE else always
    except UnavailableError:
        return always


def _gate_finding(cpu: CpuFacts, vector: int, found: str, severity: Severity) -> Finding:
    return Finding(found, "an IST stack of its own", f"IDT, vector {vector}", cpu=cpu.index, severity=severity)


def _check_task_register(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    selector = Selector(cpu.register("tr"))
    descriptor = known(cpu.gdt).find_descriptor(selector)
    problem = ""
    if selector.is_null:
        problem = "is null: LTR was never executed"
    elif selector.in_ldt or not isinstance(descriptor, SystemDescriptor) or not descriptor.is_tss:
        problem = "names no 64-bit TSS in the GDT"
    elif not descriptor.present:
        problem = "names a TSS descriptor that is not present"
    elif descriptor.limit < TSS_SIZE - 1:
        problem = f"names a TSS of {descriptor.limit + 1} bytes"
    if problem:
        yield Finding(f"TR = {selector} {problem}", f"a TSS of {TSS_SIZE} bytes", "TR", cpu=cpu.index)


def _check_idtr(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    base, limit = cpu.register("idtr.base"), cpu.register("idtr.limit")
    if is_idt_unset(base, limit):
        yield Finding(
            f"IDTR = base {base:#x}, limit {limit:#x}: what reset or the firmware left, LIDT was never executed",
            "an IDT of the kernel's",
            "IDTR",
            cpu=cpu.index,
        )


def _check_call_gates(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
    for entry in known(cpu.gdt).entries:
        gate = entry.descriptor
        if isinstance(gate, CallGate) and gate.present and gate.dpl == 3:
            target = f"{gate.selector.value:#x}:{facts.name(gate.offset)}"
            yield Finding(
                f"{entry.selector} is a call gate with DPL 3 to {target}",
                "no call gate that programs may use",
                "GDT",
                entry.address,
                cpu.index,
            )


DESCRIPTOR_RULES = (
    Rule(
        "EXO020",
        Severity.ERROR,
        "STAR's SYSCALL selectors name kernel segments",
        "SYSCALL loads CS and SS with fixed attributes and does not look at the GDT. The mistake shows later: "
        "an interrupt saves these selectors, and its IRETQ loads whatever the GDT really holds there.",
        "Intel SDM Vol. 2B, SYSCALL; Vol. 3A, Fast System Calls in 64-Bit Mode",
        "Put the 64-bit kernel code segment at STAR[47:32] and the kernel data segment 8 bytes behind it.",
        each_cpu(_check_syscall_selectors),
    ),
    Rule(
        "EXO021",
        Severity.ERROR,
        "STAR's SYSRET selectors name user segments",
        "SYSRETQ loads CS = STAR[63:48] + 16 and SS = STAR[63:48] + 8 with fixed attributes. The first "
        "interrupt in user mode saves them, and its IRETQ loads the descriptors that the GDT really holds "
        "there.",
        "Intel SDM Vol. 2B, SYSRET; AMD APM Vol. 3, SYSRET",
        "Order the GDT: 32-bit user code (STAR[63:48]), user data, 64-bit user code.",
        each_cpu(_check_sysret_selectors),
    ),
    Rule(
        "EXO022",
        Severity.WARNING,
        "STAR carries the right RPLs",
        "Intel's SYSRET forces RPL 3 into CS and SS, AMD's only into CS: SS keeps the RPL in STAR[63:48]. "
        "With RPL 0 there, the IRETQ that ends the first interrupt in user mode raises #GP on AMD, because SS "
        "and CS differ in RPL. QEMU without KVM does it Intel's way, and the mistake does not show there.",
        "AMD APM Vol. 3, SYSRET and IRET; Intel SDM Vol. 2B, SYSRET",
        "Write the user base selector with RPL 3 (0x1b, say, instead of 0x18) and the kernel's with RPL 0.",
        each_cpu(_check_rpl),
    ),
    Rule(
        "EXO023",
        Severity.ERROR,
        "What FMASK cannot hold back has an IST stack",
        "Between SYSCALL and the stack switch rsp is the user's. FMASK does not hold back NMI, #MC, #DF, or the "
        "#DB of a data breakpoint that a MOV SS in front of SYSCALL hit: the CPU puts it off by one instruction, "
        "to the first of the kernel. Without an IST stack their frames are written at CPL 0 where the user's rsp "
        "points.",
        "Intel SDM Vol. 3A, Interrupt Stack Table; Masking Exceptions and Interrupts When Switching Stacks; "
        "CVE-2018-8897",
        "Give NMI, #DF, #DB and #MC gates an IST index each, and fill those IST slots in every CPU's TSS.",
        each_cpu(_check_ist),
    ),
    Rule(
        "EXO024",
        Severity.ERROR,
        "TR names a 64-bit TSS",
        "Without a TSS the CPU finds neither RSP0 nor an IST stack: the first interrupt in user mode ends in "
        "a triple fault.",
        "Intel SDM Vol. 3A, Task Management in 64-bit Mode",
        "Build a TSS for each CPU, put its 16-byte descriptor into that CPU's GDT, and execute LTR there.",
        each_cpu(_check_task_register),
    ),
    Rule(
        "EXO027",
        Severity.ERROR,
        "No call gate leads into the kernel",
        "By a far CALL through a gate with DPL 3 a program enters the kernel beside all that guards SYSCALL: "
        "with its own flags, IF and TF among them, and its own GS base, on the stack of RSP0. No MSR and no IDT "
        "shows it; 64-bit kernels have no use for one, rootkits have.",
        "Intel SDM Vol. 3A, IA-32e Mode Call Gates; AMD APM Vol. 2, Long-Mode Segment Descriptors",
        "Clear the descriptor, or give it DPL 0, and find out who wrote it.",
        each_cpu(_check_call_gates),
    ),
    Rule(
        "EXO028",
        Severity.ERROR,
        "IDTR names an IDT",
        "Without an IDT the first exception finds no gate, nor does the #DF that follows: a triple fault, "
        "whatever the mistake was.",
        "Intel SDM Vol. 3A, Processor State After Reset; Vol. 2A, LGDT/LIDT",
        "Execute LIDT on every CPU before page tables and MSRs are touched, with gates for the exceptions at "
        "least; STI only then.",
        each_cpu(_check_idtr),
    ),
)
