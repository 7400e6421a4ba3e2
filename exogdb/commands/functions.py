"""Convenience functions for conditions and scripts: `$exo_msr("lstar")`, `$exo_gs("kernel")`, `$exo_cpl()`.

While the language is Rust, GDB wants to build a "string" inside the guest before it calls a function, which a
kernel does not let it do; there `b"lstar"` (or an MSR's number) says the same.
"""

from ast import literal_eval
from collections.abc import Callable

import gdb

from exogdb.commands.registry import explain
from exogdb.errors import ExoError, UnavailableError, UsageError
from exogdb.interrupts import interrupts_held
from exogdb.target.cpus import Cpu
from exogdb.target.gs import find_entries, read_gs
from exogdb.target.msr.msrs import Via, read_msr
from exogdb.target.registers import read_cpl
from exogdb.target.session import asking_guest, is_deciding, require_guest

__all__ = ["exo_cpl", "exo_gs", "exo_msr"]


def _about_cpu(body: Callable[..., int]) -> Callable[..., gdb.Value]:
    """A convenience function: an unsigned 64-bit number about the selected CPU, or an error of one sentence."""

    def evaluate(*arguments: gdb.Value) -> gdb.Value:
        try:
            cpu = require_guest().cpu
            with asking_guest():
                number = body(cpu, *arguments)
        except ExoError as error:
            raise gdb.GdbError(str(error)) from None
        except gdb.error as error:
            raise gdb.GdbError(explain(f"${body.__name__}", error)) from None
        except TypeError:
            raise gdb.GdbError("wrong number of arguments: `help function` shows how it is used") from None
        return gdb.Value(
            number.to_bytes(8, "little"), gdb.selected_inferior().architecture().integer_type(64, False)
        )

    return evaluate


@_about_cpu
def exo_msr(cpu: Cpu, name: gdb.Value) -> int:
    """An MSR of the selected CPU.

    Usage: $exo_msr("lstar"), in Rust $exo_msr(b"lstar"); a number works too.
    Read as by exo-msr: without QMP, RDMSR is executed in the guest, but not for a
    breakpoint's condition.
    Example: break *$exo_msr(0xc0000082)
    """
    wanted = hex(int(name)) if name.type.code == gdb.TYPE_CODE_INT else _text(name)
    return read_msr(cpu, wanted, Via.QUIET if is_deciding() else Via.BEST)


def _text(value: gdb.Value) -> str:
    """A string argument: C's array of char, or Rust's byte string, which GDB can only print: `b"lstar"`."""
    if value.type.code != gdb.TYPE_CODE_STRING:
        return value.string()
    with interrupts_held():  # GDB prints one that strikes while it looks for a pretty-printer, and goes on
        printed = literal_eval(value.format_string(raw=True))
    return printed.decode("ascii", "replace") if isinstance(printed, bytes) else str(printed)


@_about_cpu
def exo_gs(cpu: Cpu, owner: gdb.Value) -> int:
    """The kernel's or the user's GS base of the selected CPU.

    Usage: $exo_gs("kernel"), $exo_gs("user"); in Rust $exo_gs(b"kernel").
    """
    report = read_gs(cpu, find_entries([cpu]).get(cpu.index)).report
    owners, wanted = {"kernel": report.kernel, "user": report.user}, _text(owner)
    if wanted not in owners:
        raise UsageError(f'$exo_gs("{wanted}"): say "kernel" or "user"')
    base = owners[wanted]
    if base is None:
        raise UnavailableError(f"which GS base is whose is unavailable ({report.why})")
    return base


@_about_cpu
def exo_cpl(cpu: Cpu) -> int:
    """The selected CPU's privilege level.

    Usage: $exo_cpl()
    Example: break *$exo_msr(0xc0000082) if $exo_cpl() == 0
    """
    return read_cpl(cpu)
