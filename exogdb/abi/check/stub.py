"""Rules about the entry stub's code: GS, stacks, the call of the dispatcher, and what comes back to user space.

The stub was followed along every branch before (`exogdb.abi.stub.entry`); the rules read what was found. Where the
analysis was not sure, the rule that needs it is `not checked`.
"""

from collections.abc import Iterator

from exogdb.abi.check.facts import EntryFacts, Facts, known
from exogdb.abi.check.rule import Finding, NotChecked, Outcome, Rule, Severity, each_entry
from exogdb.abi.stub.entry_path import Dispatcher, EntryPath, Exit, GsAccess
from exogdb.abi.stub.stub_state import StubState
from exogdb.abi.stub.symbolic import Flag, Gs
from exogdb.errors import UnavailableError
from exogdb.reading import Reading, Unavailable

__all__ = ["STUB_RULES", "describe_exit", "find_dispatcher", "is_left_at_dispatch", "require_exits"]

OWNED_BY_USER = ("rip", "rsp", "rflags", "rbx", "rbp", "r12", "r13", "r14", "r15")


def is_left_at_dispatch(path: EntryPath, flag: str) -> bool:
    """Whether `flag` (`DF`, `AC`, `NT`) is as SYSCALL left it when the dispatcher starts, on one path at least.

    :raise UnavailableError: there is no dispatcher, or the code does not tell.
    """
    dispatcher = find_dispatcher(path)
    state = path.state_at(dispatcher.call_address)
    value = Flag.UNKNOWN if state is None else state.flag(flag)
    if value is Flag.UNKNOWN:
        raise UnavailableError(f"the code does not tell what {flag} is at the dispatcher's call")
    return value is not Flag.CLEAR


def find_dispatcher(path: EntryPath) -> Dispatcher:
    """The dispatcher.

    :raise UnavailableError: the analysis found none.
    """
    if path.dispatcher is None:
        raise UnavailableError("no call of a dispatcher was found in the entry stub")
    return path.dispatcher


def require_exits(path: EntryPath) -> tuple[Exit, ...]:
    """Every way back to user space.

    :raise UnavailableError: the analysis found none.
    """
    if not path.exits:
        raise UnavailableError("no way back to user space was found in the entry stub")
    return path.exits


def _early_gs_uses(path: EntryPath) -> list[GsAccess]:
    return [access for access in path.gs_accesses if access.active is Gs.USER]


def _require_kernel_gs(path: EntryPath) -> None:
    """What comes out of a GS slot means nothing if it is not the kernel's slot."""
    if _early_gs_uses(path):
        raise UnavailableError("the entry stub uses GS while the user's base is active (EXO030)")


def describe_exit(facts: Facts, exit_: Exit) -> str:
    """`the SYSRET at ...`, for a sentence."""
    return f"the {exit_.kind.upper()} at {facts.name(exit_.address)}"


def _check_swapgs(entry: EntryFacts, facts: Facts) -> Iterator[Outcome]:
    path = known(entry.path)
    early = _early_gs_uses(path)
    if early:
        first = early[0]
        yield Finding(
            f"gs:[{first.offset:#x}] is used at {facts.name(first.address)} while the user's GS base is active",
            "SWAPGS between SYSCALL and the first use of GS, on every path",
            "entry stub",
            first.address,
        )
        return
    for exit_ in require_exits(path):
        if exit_.gs is Gs.KERNEL:
            yield Finding(
                f"{describe_exit(facts, exit_)} is reached with the kernel's GS base active",
                "as many SWAPGS on the way out as on the way in",
                "entry stub",
                exit_.address,
            )
        elif exit_.gs is Gs.UNKNOWN:
            yield NotChecked(
                f"which GS base is active at {describe_exit(facts, exit_)} differs between paths, or is not known"
            )


def _check_user_stack(entry: EntryFacts, facts: Facts) -> Iterator[Outcome]:
    uses = known(entry.path).user_stack_uses
    if uses:
        count = "1 instruction uses" if len(uses) == 1 else f"{len(uses)} instructions use"
        yield Finding(
            f"{count} memory at the user's rsp in the kernel, the first at {facts.name(uses[0])}",
            "no stack access before rsp is the kernel's",
            "entry stub",
            uses[0],
        )


def _kernel_tops(entry: EntryFacts, facts: Facts) -> set[int]:
    values = (cpu.kernel_rsp for cpu in facts.cpus if cpu.index in entry.cpus)
    return {value.value for value in values if isinstance(value, Reading) and value.value}


def _check_alignment(entry: EntryFacts, facts: Facts) -> Iterator[Outcome]:
    dispatcher = find_dispatcher(known(entry.path))
    if dispatcher.realigned:
        return
    if dispatcher.rsp_below_top is None:
        raise UnavailableError("how deep the kernel stack is at the dispatcher's call is not known")
    tops = _kernel_tops(entry, facts)
    if not tops and dispatcher.is_aligned:
        raise UnavailableError("no CPU has a kernel stack in its per-CPU block now, so its alignment is not known")
    # Without a live stack: any top that is itself aligned gives the same answer.
    misaligned = {(top - dispatcher.rsp_below_top) % 16 for top in tops or {0}} - {0}
    if misaligned:
        use = entry.aligned_stack_use
        yield Finding(
            f"rsp is {max(misaligned)} bytes past a multiple of 16 at the call of {_target(dispatcher, facts)}; "
            + _describe_use(use, facts),
            "rsp a multiple of 16 right before the call",
            "entry stub",
            dispatcher.call_address,
            severity=Severity.NOTE if use is None else None,
        )


def _describe_use(use: int | Unavailable | None, facts: Facts) -> str:
    if isinstance(use, Unavailable):
        return f"whether code needs that is not known ({use.reason})"
    return "the code behind it does not need that" if use is None else f"the code at {facts.name(use)} needs that"


def _target(dispatcher: Dispatcher, facts: Facts) -> str:
    return dispatcher.target if dispatcher.address is None else facts.name(dispatcher.address)


def _check_leaks(entry: EntryFacts, facts: Facts) -> Iterator[Outcome]:
    path = known(entry.path)
    _require_kernel_gs(path)
    for exit_ in require_exits(path):
        leaked = [name for name, what in exit_.registers.items() if what.kind == "leaked"]
        unknown = [name for name, what in exit_.registers.items() if what.kind == "unknown"]
        if leaked:
            yield Finding(
                f"at {describe_exit(facts, exit_)} {', '.join(leaked)} hold what the kernel left there",
                "every register restored, cleared, or the result",
                "entry stub",
                exit_.address,
            )
        if unknown:
            yield NotChecked(
                f"what {', '.join(unknown)} hold at {describe_exit(facts, exit_)} could not be followed"
            )


def _check_restored(entry: EntryFacts, facts: Facts) -> Iterator[Outcome]:
    path = known(entry.path)
    _require_kernel_gs(path)
    for exit_ in require_exits(path):
        wrong = {name: problem for name in OWNED_BY_USER if (problem := _restore_problem(path, exit_, name))}
        if wrong:
            fatal = not wrong.keys().isdisjoint({"rip", "rsp"})
            yield Finding(
                f"at {describe_exit(facts, exit_)}: "
                + "; ".join(f"{name} {problem}" for name, problem in wrong.items()),
                "the value that the program had",
                "entry stub",
                exit_.address,
                severity=Severity.ERROR if fatal else None,
            )


def _restore_problem(path: EntryPath, exit_: Exit, register: str) -> str:
    """How `register` comes back wrong, or an empty string. `unknown` is left to EXO035."""
    returned = exit_.registers.get(register)
    if returned is None or returned.kind in ("untouched", "unknown"):
        return ""
    if returned.kind != "restored":
        return f"is {returned.kind} ({returned.value})"
    if returned.gs_slot is not None:
        return _gs_slot_problem(path, returned.gs_slot, register)
    slot = next((slot for slot in path.frame.slots if slot.offset == returned.frame_offset), None)
    if slot is None or slot.holds == register:
        return ""
    if slot.is_constant:
        return f"comes back from the slot where {slot.value} was put"
    return f"comes back from the slot where {slot.holds} was saved" if slot.holds is not None else ""


def _gs_slot_problem(path: EntryPath, offset: int, register: str) -> str:
    saved = path.gs_saved.get(offset, register)
    if saved != register:
        what = f"{saved} was saved" if saved is not None else "a constant was put"
        return f"comes back from gs:[{offset:#x}], where {what}"
    is_top = path.stack is not None and path.stack.is_kept and offset == path.stack.gs_slot
    return f"comes back from gs:[{offset:#x}], which holds the kernel's stack" if is_top else ""


def _find_exposed(path: EntryPath) -> list[StubState]:
    """The instructions in front of which rsp or GS base is the user's, in address order.

    A kernel that calls its dispatcher with the user's GS base does not count on its own.
    """
    at_call = path.state_at(find_dispatcher(path).call_address)
    swaps = at_call is not None and at_call.gs is Gs.KERNEL
    shadowed = {state.next for state in path.states.values() if state.text == "sti"}  # STI takes effect one later
    return [
        state
        for address, state in sorted(path.states.items())
        if address not in shadowed and (state.stack == "user" or (swaps and state.gs is Gs.USER))
    ]


def _check_interrupts(entry: EntryFacts, facts: Facts) -> Iterator[Outcome]:
    path = known(entry.path)
    _require_kernel_gs(path)
    exposed = _find_exposed(path)
    enabled = [state for state in exposed if state.flag("IF") is Flag.SET]
    if enabled:
        what = "rsp" if enabled[0].stack == "user" else "GS base"
        yield Finding(
            f"STI was executed and no CLI, and at {facts.name(enabled[0].address)} the {what} is the user's",
            "CLI before rsp and GS base are the user's again, STI after they are the kernel's",
            "entry stub",
            enabled[0].address,
        )
    elif any(state.flag("IF") is Flag.UNKNOWN for state in exposed):
        yield NotChecked("the code does not tell whether interrupts are off where rsp or GS base is the user's")


STUB_RULES = (
    Rule(
        "EXO030",
        Severity.ERROR,
        "SWAPGS is balanced on every path",
        "Without SWAPGS on entry the stub takes its kernel stack from an address that the user program chose. "
        "Without it on exit the program runs with the kernel's GS base, and the next entry swaps the wrong "
        "way.",
        "Intel SDM Vol. 2B, SWAPGS; compare CVE-2019-1125 (SWAPGS under speculation)",
        "Execute SWAPGS first on entry, and last before every SYSRET and IRETQ to user mode.",
        each_entry(_check_swapgs),
    ),
    Rule(
        "EXO031",
        Severity.ERROR,
        "The user's stack is not used in the kernel",
        "rsp is whatever the program set it to: a push at CPL 0 writes to any kernel address it chose, or "
        "faults on a stack that the page-fault handler cannot use either.",
        "Intel SDM Vol. 2B, SYSCALL (rsp is not changed)",
        "Save rsp in the per-CPU block and load the kernel stack before the first push, pop or call.",
        each_entry(_check_user_stack),
    ),
    Rule(
        "EXO032",
        Severity.ERROR,
        "The stack is aligned at the dispatcher's call",
        "Compiled code may use MOVAPS on its stack, which raises #GP unless rsp was a multiple of 16 at the "
        "call. It shows in one build and not in another.",
        "System V ABI AMD64, The Stack Frame",
        "If the kernel is built for 8-byte stacks (-mpreferred-stack-boundary=3), nothing. Push an even "
        "number of eight-byte words below a 16-byte aligned top, or `and rsp, -16` before the call.",
        each_entry(_check_alignment),
    ),
    Rule(
        "EXO035",
        Severity.WARNING,
        "No register carries kernel values to user space",
        "The dispatcher may leave anything in the registers it may clobber: kernel pointers defeat address "
        "randomisation, and data of other processes leaks.",
        "System V ABI AMD64, Register Usage (caller-saved registers)",
        "Restore each register from the frame, or clear it (`xor edi, edi`) before SYSRET.",
        each_entry(_check_leaks),
    ),
    Rule(
        "EXO036",
        Severity.WARNING,
        "What belongs to the program comes back",
        "Programs and their compilers count on rsp, the callee-saved registers and the flags being unchanged "
        "by a system call. A wrong rip or rsp ends the program at once.",
        "System V ABI AMD64, Linux Conventions, Calling Conventions; Intel SDM Vol. 2B, SYSRET",
        "Pop in the reverse order of the pushes, each value into the register it came from.",
        each_entry(_check_restored),
    ),
    Rule(
        "EXO037",
        Severity.ERROR,
        "Interrupts are off while rsp or GS base is the user's",
        "Before the stack switch on the way in, and between loading the user's rsp and SYSRET on the way out, an "
        "interrupt would be taken at CPL 0 on the user's stack; before and after SWAPGS with the user's GS base.",
        "Intel SDM Vol. 2B, SYSRET (software has to prevent interrupts while rsp is the user's)",
        "Execute STI only on the kernel's stack, and CLI before the exit path restores rsp; SYSRET loads IF from "
        "r11.",
        each_entry(_check_interrupts),
    ),
)
