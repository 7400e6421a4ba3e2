"""`exo-syscall frame set`: change what the user program will find when its system call returns."""

from argparse import ArgumentParser, Namespace

from exogdb.abi.frame_base import find_frame_base
from exogdb.abi.frame_edit import EDITABLE, Edit, find_user_register, plan_edit, warn_of_edit
from exogdb.commands.confirm import is_confirmed
from exogdb.commands.frame import make_frame_output
from exogdb.commands.registry import Output, command
from exogdb.errors import UsageError
from exogdb.reading import Reading
from exogdb.target.call.current_call import Call, find_state, read_call
from exogdb.target.kernel_memory import find_kernel_gs_base
from exogdb.target.path import read_entry_path
from exogdb.target.registers import read_cpl, read_register, write_register
from exogdb.target.session import Session
from exogdb.target.symbols import evaluate_address
from exogdb.x86.address import linear_bits

__all__: list[str] = []


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=", ".join(EDITABLE))
    parser.add_argument("value", metavar="VALUE", help="a number or an expression that GDB can evaluate")


@command("exo-syscall frame set", add_arguments=_add_arguments, complete={"NAME": lambda _token: EDITABLE})
def exo_syscall_frame_set(session: Session, options: Namespace) -> Output:
    """Set a saved register, an argument or the result.

    Usage: exo-syscall frame set rip|rsp|rflags|arg1..arg6|ret VALUE [--json]

    This changes the guest, so it asks first (`set confirm off` stops that). Every
    place that the way back reads is written: the frame, the per-CPU block, and in
    the stub the CPU's registers. Refused are a rip that is not canonical, on which
    SYSRET would fault in the kernel, and whatever would have no effect: flags that
    SYSRET does not load, `ret` before the dispatcher has returned, an argument
    that only compiled code has. Shows the frame as it is then, and the command
    that takes it back.

    Example: exo-syscall frame set rip 0x11000000
    Example: exo-syscall frame set ret -1
    """
    cpu, value = session.cpu, evaluate_address(options.value)
    call, path, state = read_call(cpu), read_entry_path(cpu), find_state(cpu)
    gs_base = find_kernel_gs_base(cpu, state, read_cpl(cpu))
    bits = linear_bits(read_register(cpu, "cr4"))
    base = call.frame.base
    if state is not None and state.depth is not None:
        base = find_frame_base(path, read_register(cpu, "rsp") + state.depth)
    rip = read_register(cpu, "rip")
    edit = plan_edit(options.name, value, path, call.moment, base, state, gs_base, bits, rip)
    before = _read_old(call, options.name)
    if not is_confirmed(f"Set {_describe(edit)} on CPU {cpu.index}{_remark(options.name, value, before)}?"):
        raise UsageError(f"{options.name} was not set")
    for address in edit.addresses:
        session.memory.write(address, edit.value.to_bytes(8, "little"))
    for register in edit.registers:
        write_register(cpu, register, edit.value)
    return _make_output(read_call(cpu), cpu.index, options.name, before)


def _make_output(call: Call, cpu: int, name: str, before: int | None) -> Output:
    shown = make_frame_output(call, f"CPU {cpu}")
    undo = f"exo-syscall frame set {name} {before:#x}" if before is not None else None
    hint = f"{name} was {before:#x}: `{undo}` takes it back\n\n" if undo is not None else ""
    return Output(lambda style: hint + shown.render(style), lambda: {**shown.to_json(), "undo": undo})


def _describe(edit: Edit) -> str:
    places = [f"[{address:#x}]" for address in edit.addresses] + list(edit.registers)
    return f"{edit.name} = {edit.value:#x} in {', '.join(places)}"


def _read_old(call: Call, name: str) -> int | None:
    saved = call.frame.find(find_user_register(name))
    return saved.value.value if saved is not None and isinstance(saved.value, Reading) else None


def _remark(name: str, value: int, before: int | None) -> str:
    """What to know before saying yes: the old value, and what the new one will do."""
    known = f"now {before:#x}" if before is not None else ""
    remarks = "; ".join(filter(None, (known, warn_of_edit(name, value))))
    return f" ({remarks})" if remarks else ""
