"""`exo-syscall abi`: what the entry stub does, derived from its code."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

from exogdb.abi.check.signature import find_disagreements
from exogdb.abi.profile import write_profile
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.commands.completion import complete_path
from exogdb.commands.registry import Output, command
from exogdb.errors import UnavailableError, UsageError
from exogdb.home import expand_home
from exogdb.reading import Unavailable
from exogdb.target.check.check import read_signature
from exogdb.target.path import read_entry_path
from exogdb.target.profile import find_profile, read_profile
from exogdb.target.session import Session
from exogdb.target.symbols import find_symbol
from exogdb.view.abi import AbiReport, abi_to_json, render_abi

__all__: list[str] = []


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--save", metavar="FILE", help="write a profile file (TOML) for `set exo profile`")


@command("exo-syscall abi", add_arguments=_add_arguments, complete={"--save": complete_path})
def exo_syscall_abi(session: Session, options: Namespace) -> Output:
    """Show what the stub behind LSTAR does, derived from its code.

    Usage: exo-syscall abi [--save FILE] [--json]

    The listing has, for each instruction, whose GS base is active (U, K), the
    stack's depth below the kernel stack's top, and what the instruction does.
    Below it: per-CPU slots, the saved frame, the dispatcher and how it gets number
    and arguments, and how each exit gives the registers back. --save writes a
    profile that can be edited and loaded with `set exo profile FILE`. Nothing in
    the guest changes.

    Example: exo-syscall abi
    Example: exo-syscall abi --save kernel.toml
    """
    path = read_entry_path(session.cpu)
    if options.save is not None:
        return _save(path, expand_home(Path(options.save)))
    report = AbiReport(path, _name, *_read_signature(path))
    return Output(lambda style: render_abi(report, style), lambda: abi_to_json(report))


def _save(path: EntryPath, file: Path) -> Output:
    try:
        file.write_text(write_profile(path, _groups()), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write the profile {file}: {error.strerror}") from error
    return Output(lambda _: f"wrote {file}; `set exo profile {file}` loads it", lambda: {"profile": str(file)})


def _groups() -> Mapping[str, str]:
    profile = find_profile()
    return read_profile(profile).groups if profile is not None else {}


def _name(address: int) -> str:
    return str(find_symbol(address) or "")


def _read_signature(path: EntryPath) -> tuple[str, tuple[str, ...]]:
    """The dispatcher's signature as text, and where it and the stub disagree."""
    parameters = read_signature(path)
    if isinstance(parameters, Unavailable) or path.dispatcher is None:
        return "", ()
    kinds = (f"{each.name}: {'pointer' if each.is_pointer else f'{each.size} bytes'}" for each in parameters)
    try:
        problems = tuple(find_disagreements(path.dispatcher, parameters, path.frame))
    except UnavailableError as error:
        problems = (error.reason,)
    return f"({', '.join(kinds)})", problems
