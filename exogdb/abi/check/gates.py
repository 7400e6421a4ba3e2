"""Rules about interrupts: what user programs may raise and reach, and what they can make a handler believe."""

from collections.abc import Iterator

from exogdb.abi.check.descriptors import window_vectors
from exogdb.abi.check.facts import CpuFacts, Facts, known
from exogdb.abi.check.rule import Finding, Outcome, Rule, Severity, each_cpu
from exogdb.reading import Unavailable
from exogdb.x86.idt import EXCEPTIONS, vector_name

__all__ = ["GATE_RULES", "window_handlers"]

CR4_FSGSBASE = 1 << 16
BREAKPOINT, OVERFLOW = 3, 4
# What a program has no other way to raise: it stops the kernel, or enters a handler that trusts nobody to have
# called it. #DB is not among them: TF and INT1 raise it through any gate.
NEVER_A_PROGRAMS = {"NMI", "#DF", "#MC"}
TABLES = {"gdtr": "GDT", "idtr": "IDT", "tr": "TSS"}


def _check_tables(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    for register, span in known(cpu.spans).items():
        table = TABLES[register]
        pages = [cpu.page(address) for address in span.pages]
        bad = next((page for page in pages if not page.mapped or page.user), None)
        if bad is not None:
            problem = "accessible to user programs" if bad.mapped else f"not mapped ({bad.reason})"
            # A limit that is too large does no harm until somebody uses a selector or vector from there.
            is_tail = not bad.mapped and bad.address != span.pages[0]
            yield Finding(
                f"the {table} at {span.base:#x}, {span.limit + 1} bytes: its page {bad.address:#x} is {problem}",
                "mapped supervisor pages",
                register.upper(),
                bad.address,
                cpu.index,
                Severity.WARNING if is_tail else None,
            )


def _check_privilege(cpu: CpuFacts, _facts: Facts) -> Iterator[Outcome]:
    for gate in known(cpu.idt)[:32]:
        if not gate.present or gate.dpl != 3 or gate.vector in (BREAKPOINT, OVERFLOW):
            continue
        exception = EXCEPTIONS.get(gate.vector)
        pushes = exception is not None and exception.pushes_error
        what = "without the error code that its handler expects" if pushes else "though nothing has happened"
        yield Finding(
            f"the gate of {gate.name} has DPL 3: `int {gate.vector:#x}` in a program enters its handler {what}",
            "DPL 0",
            f"IDT, vector {gate.vector}",
            gate.handler,
            cpu.index,
            Severity.ERROR if pushes or gate.name in NEVER_A_PROGRAMS else Severity.WARNING,
        )


def window_handlers(cpu: CpuFacts) -> dict[int, str]:
    """The handlers of what may arrive in the stub, by address, if user programs can set the GS base; else none."""
    cr4 = cpu.registers.get("cr4")
    if isinstance(cpu.idt, Unavailable) or cr4 is None or isinstance(cr4, Unavailable):
        return {}
    if not cr4.value & CR4_FSGSBASE:
        return {}
    gates = [gate for gate in cpu.idt if gate.vector in window_vectors(cpu) and gate.present]
    return {gate.handler: vector_name(gate.vector) for gate in gates}


def _check_gs_sign(cpu: CpuFacts, facts: Facts) -> Iterator[Outcome]:
    if not cpu.register("cr4") & CR4_FSGSBASE:
        return
    known(cpu.idt)
    deciding: dict[int, list[str]] = {}
    for handler, name in window_handlers(cpu).items():
        test = known(facts.gs_tests.get(handler, Unavailable(f"the code at {handler:#x} was not read")))
        if test is not None:
            deciding.setdefault(test, []).append(name)
    for address, names in sorted(deciding.items()):
        yield Finding(
            f"CR4.FSGSBASE = 1, and after {', '.join(names)} the code at {facts.name(address)} decides by the "
            "sign of the GS base whose it is",
            "a test that does not depend on the user's GS base",
            "exception handlers",
            address,
            cpu.index,
        )


GATE_RULES = (
    Rule(
        "EXO025",
        Severity.ERROR,
        "The descriptor tables are the kernel's",
        "Whoever can write a gate, a descriptor or RSP0 chooses the code, the privilege or the stack of the next "
        "interrupt; whoever can read them learns where the kernel is. A page of a table that is not mapped is a "
        "double fault at the first use of what is in it.",
        "Intel SDM Vol. 3A, Interrupt Descriptor Table (IDT); Access Rights",
        "Map GDT, IDT and TSS with U/S = 0 in every address space.",
        each_cpu(_check_tables),
    ),
    Rule(
        "EXO026",
        Severity.ERROR,
        "INT n raises no exception but #BP and #OF",
        "A gate with DPL 3 can be called by a program with `int n`. The CPU pushes no error code then: a handler "
        "that expects one takes rip for it, and every word of the frame for its neighbour. It finds the program's "
        "flags where it looks for cs, which says whether it came from user mode, and its IRETQ loads cs from them "
        "and rflags from the program's rsp. A program that raises #DF, NMI or #MC whenever it likes stops the "
        "kernel, or enters it where it checks nothing. INT1 (f1) is no INT n: it raises #DB through any gate.",
        "Intel SDM Vol. 3A, Protection of Exception- and Interrupt-Handler Procedures; Vol. 2A, INT "
        "n/INTO/INT3/INT1",
        "Give every gate below 32 DPL 0, except #BP (3) and #OF (4).",
        each_cpu(_check_privilege),
    ),
    Rule(
        "EXO038",
        Severity.ERROR,
        "Handlers do not ask a GS base that programs can set",
        "NMI, #MC and #DB can arrive in the stub before SWAPGS, where CPL says nothing about the GS base. Many "
        "handlers then look whether the active base is negative, as a kernel address is. With CR4.FSGSBASE a "
        "program can set such a base with WRGSBASE, and the handler runs with the program's GS as if it were the "
        "kernel's.",
        "Intel SDM Vol. 2D, WRFSBASE/WRGSBASE; Linux, Documentation/arch/x86/entry_64.rst (paranoid entry)",
        "Compare with what is known on the IST stack, or save the base with RDGSBASE and set the kernel's, "
        "unconditionally; or leave CR4.FSGSBASE clear.",
        each_cpu(_check_gs_sign),
    ),
)
