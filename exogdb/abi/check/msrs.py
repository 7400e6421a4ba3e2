"""Rules about the MSRs that SYSCALL itself reads: EFER.SCE, FMASK and CSTAR.

FMASK is an answer to one question: with which flags does the first kernel instruction run? RFLAGS is the user's
at that moment, less what FMASK clears, while rsp and the active GS base are still the user's too.
"""

from collections.abc import Iterator

from exogdb.abi.check.facts import CpuFacts, Facts, known
from exogdb.abi.check.rule import Finding, Outcome, Rule, Severity, each_cpu
from exogdb.abi.check.stub import is_left_at_dispatch
from exogdb.errors import UnavailableError
from exogdb.x86.address import is_canonical
from exogdb.x86.descriptor import CodeDescriptor

__all__ = ["MSR_RULES"]

EFER_SCE = 1 << 0
CR4_SMAP = 1 << 21
TF, IF, DF, NT, AC = 1 << 8, 1 << 9, 1 << 10, 1 << 14, 1 << 18
DEBUG_VECTOR = 1


def _check_sce(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    efer = cpu.msr("IA32_EFER")
    if not efer & EFER_SCE:
        yield Finding(f"IA32_EFER = {efer:#x}, SCE = 0", "SCE (bit 0) = 1", "IA32_EFER", cpu=cpu.index)


def _leaves(cpu: CpuFacts, flag: int) -> bool:
    return not cpu.msr("IA32_FMASK") & flag


def _left(cpu: CpuFacts, flag: str, detail: str, severity: Severity | None = None) -> Finding:
    return Finding(
        found=f"IA32_FMASK = {cpu.msr('IA32_FMASK'):#x} leaves {flag} to the user: {detail}",
        expected=f"{flag} set in IA32_FMASK",
        where="IA32_FMASK",
        cpu=cpu.index,
        severity=severity,
    )


def _check_if(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    if _leaves(cpu, IF):
        yield _left(cpu, "IF", "interrupts can arrive before the stub has switched stacks")


def _check_tf(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    if not _leaves(cpu, TF):
        return
    gates = known(cpu.idt)
    gate = gates[DEBUG_VECTOR] if len(gates) > DEBUG_VECTOR else None
    if gate is None or not gate.present:
        yield _left(cpu, "TF", "the IDT has no gate for #DB")
    elif gate.ist == 0:
        yield _left(cpu, "TF", "#DB has no IST stack, so its frame goes where the user's rsp points")
    else:
        detail = f"#DB lands on IST{gate.ist}, whose handler must expect it at CPL 0 in the entry stub"
        yield _left(cpu, "TF", detail, Severity.WARNING)


def _check_df(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
    if _leaves(cpu, DF) and is_left_at_dispatch(facts.path_of(cpu), "DF"):
        yield _left(cpu, "DF", "the entry stub can call compiled code without CLD")


def _check_ac(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
    if not _leaves(cpu, AC) or not cpu.register("cr4") & CR4_SMAP:
        return
    if is_left_at_dispatch(facts.path_of(cpu), "AC"):
        yield _left(cpu, "AC", "CR4.SMAP is on, and a program that sets AC first switches it off for the kernel")


def _check_nt(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
    if _leaves(cpu, NT) and is_left_at_dispatch(facts.path_of(cpu), "NT"):
        yield _left(cpu, "NT", "an IRETQ executed during the call raises #GP in the kernel")


def _check_sysenter(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
    if facts.model.vendor == "AuthenticAMD" or not cpu.msr("IA32_SYSENTER_CS") & 0xFFFC:
        return
    entry = cpu.msr("IA32_SYSENTER_EIP")
    problem = _entry_problem(cpu, entry)
    if problem:
        yield Finding(
            found=f"IA32_SYSENTER_CS = {cpu.msr('IA32_SYSENTER_CS'):#x} allows SYSENTER, and IA32_SYSENTER_EIP = "
            f"{entry:#x}: {problem}",
            expected="a kernel entry point, or a null selector in IA32_SYSENTER_CS",
            where="IA32_SYSENTER_EIP",
            address=entry,
            cpu=cpu.index,
        )


def _check_cstar(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
    cstar = cpu.msr("IA32_CSTAR")
    problem = "never set" if cstar == 0 else _entry_problem(cpu, cstar)
    if problem:
        yield Finding(
            found=f"IA32_CSTAR = {cstar:#x}: {problem}{_compatibility(cpu, facts)}",
            expected="a kernel entry point that refuses or serves 32-bit calls",
            where="IA32_CSTAR",
            address=cstar or None,
            cpu=cpu.index,
            severity=_cstar_severity(cpu, facts, is_set=cstar != 0),
        )


def _entry_problem(cpu: CpuFacts, address: int) -> str:
    """Why code at `address` cannot be an entry point, or an empty string."""
    if not is_canonical(address, cpu.address_bits):
        return "not canonical"
    page = cpu.page(address)
    if not page.mapped:
        return f"not mapped ({page.reason})"
    if page.nx:
        return "in a page that is not executable"
    return "in a page that user code can reach" if page.user else ""


def _compatibility(cpu: CpuFacts, facts: Facts) -> str:
    if facts.model.vendor == "GenuineIntel":
        return "; this CPU is Intel's, which never uses it"
    if _has_32_bit(cpu):
        return "; user programs can enter 32-bit mode (the GDT has such a code segment)"
    return "; the GDT has no 32-bit code segment, so programs get there by an LDT at most"


def _has_32_bit(cpu: CpuFacts) -> bool:
    return any(
        isinstance(entry.descriptor, CodeDescriptor)
        and entry.descriptor.present
        and entry.descriptor.dpl == 3
        and not entry.descriptor.long
        for entry in known(cpu.gdt).entries
    )


def _cstar_severity(cpu: CpuFacts, facts: Facts, *, is_set: bool) -> Severity:
    if facts.model.vendor == "GenuineIntel":
        return Severity.NOTE
    try:
        reachable = _has_32_bit(cpu)
    except UnavailableError:
        reachable = True
    if is_set and reachable:
        return Severity.ERROR
    return Severity.WARNING if reachable else Severity.NOTE


MSR_RULES = (
    Rule(
        "EXO001",
        Severity.ERROR,
        "SYSCALL is enabled",
        "With EFER.SCE = 0 SYSCALL and SYSRET raise #UD: every system call kills its program.",
        "Intel SDM Vol. 2B, SYSCALL; AMD APM Vol. 2, Extended Feature Enable Register",
        "Set bit 0 of IA32_EFER on every CPU, application processors included.",
        each_cpu(_check_sce),
    ),
    Rule(
        "EXO006",
        Severity.WARNING,
        "CSTAR leads to a kernel entry point",
        "On AMD, SYSCALL in compatibility mode jumps to CSTAR at CPL 0 with the user's stack. A CSTAR of 0 "
        "makes the kernel execute whatever the program mapped at address 0 (without SMEP), or fault. Intel "
        "CPUs raise #UD there and never use CSTAR.",
        "AMD APM Vol. 2, SYSCALL and SYSRET; Intel SDM Vol. 2B, SYSCALL",
        "Point IA32_CSTAR at a stub that returns -ENOSYS, or offer user programs no 32-bit code segment.",
        each_cpu(_check_cstar),
    ),
    Rule(
        "EXO008",
        Severity.ERROR,
        "SYSENTER leads to a kernel entry point, or nowhere",
        "Intel's SYSENTER works in 64-bit mode, too: any program can execute it, and gets to IA32_SYSENTER_EIP at "
        "CPL 0. What firmware or a forgotten 32-bit port left there is an entry that nobody wrote. It comes with "
        "the program's TF, DF, NT and AC: no FMASK is asked, and only VM, IF and RF are cleared. AMD CPUs raise "
        "#UD.",
        "Intel SDM Vol. 2B, SYSENTER; AMD APM Vol. 3, SYSENTER",
        "Write 0 to IA32_SYSENTER_CS, so that SYSENTER raises #GP; or point IA32_SYSENTER_EIP at an entry stub.",
        each_cpu(_check_sysenter),
    ),
    Rule(
        "EXO010",
        Severity.ERROR,
        "FMASK clears IF",
        "SYSCALL does not switch stacks. An interrupt that arrives before the stub has done so pushes its "
        "frame at CPL 0 where the user's rsp points, and its handler runs with the user's GS base.",
        "Intel SDM Vol. 2B, SYSCALL; Vol. 3A, Fast System Calls in 64-Bit Mode",
        "Set bit 9 (0x200) in IA32_FMASK; execute STI once the kernel stack is in use.",
        each_cpu(_check_if),
    ),
    Rule(
        "EXO011",
        Severity.ERROR,
        "FMASK clears TF",
        "A program that sets TF gets #DB at the first kernel instruction, at CPL 0 and with its own rsp and "
        "GS base. Without an IST stack for #DB the CPU writes the exception frame to an address that the "
        "program chose. SYSCALL looks at TF when FMASK has been applied, so the bit there is all it takes.",
        "Intel SDM Vol. 2B, SYSCALL; Vol. 3B, Single-Step Exception Condition; compare CVE-2018-8897",
        "Set bit 8 (0x100) in IA32_FMASK. If it has to stay, give #DB an IST stack and a handler that expects "
        "to interrupt the entry stub.",
        each_cpu(_check_tf),
    ),
    Rule(
        "EXO012",
        Severity.ERROR,
        "DF is clear in compiled kernel code",
        "The C calling convention promises DF = 0. With the user's DF = 1 every REP MOVS and REP STOS of the "
        "kernel runs backwards and overwrites what lies below the buffer.",
        "System V ABI AMD64, Registers (DF clear at function entry); Intel SDM Vol. 1, DF Flag",
        "Set bit 10 (0x400) in IA32_FMASK, or execute CLD before the first call of compiled code.",
        each_cpu(_check_df),
    ),
    Rule(
        "EXO013",
        Severity.WARNING,
        "AC is clear in the kernel while SMAP is on",
        "RFLAGS.AC = 1 at CPL 0 suspends SMAP. POPF sets AC at CPL 3 too, so a program can carry it into the "
        "kernel, and every stray access to user memory then goes unnoticed.",
        "Intel SDM Vol. 3A, Determination of Access Rights (SMAP); Vol. 2A, CLAC",
        "Set bit 18 (0x40000) in IA32_FMASK, or execute CLAC in the entry stub.",
        each_cpu(_check_ac),
    ),
    Rule(
        "EXO014",
        Severity.WARNING,
        "FMASK clears NT",
        "In 64-bit mode IRETQ with NT = 1 raises #GP. POPF sets NT at CPL 3, SYSCALL keeps it, and the kernel "
        "then faults at an IRETQ of its own: on the way out, or in the task it switches to.",
        "Intel SDM Vol. 2A, IRET/IRETD/IRETQ",
        "Set bit 14 (0x4000) in IA32_FMASK, or load RFLAGS from a constant before any IRETQ.",
        each_cpu(_check_nt),
    ),
)
