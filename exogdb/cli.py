"""The console script `exogdb`: what is done outside GDB."""

import os
import sys
from argparse import Action, ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from exogdb.errors import ExoError, UsageError
from exogdb.launch.image import read_image
from exogdb.launch.logfilter import log_filter
from exogdb.launch.qemu import Machine
from exogdb.launch.run import Run, run

__all__ = ["main"]

DEMO_COMMANDS = (
    "exo-syscall break 101",
    "continue",
    "exo-msr",
    "exo-gs",
    "exo-syscall frame",
    "bt",
    "list",
)
DEMO_FAREWELL = """
The guest is stopped inside the system call. Try next:
  exo-syscall list          every system call of this kernel
  exo-syscall break %file   stop at a group of calls (`help exo-syscall break`)
  exo-syscall finish        go to where the call returns
  exo-syscall trace         one line a call, until Ctrl-C or a breakpoint
  exo-syscall check         what is wrong with this kernel's system-call path
  continue                  to the next ipc_send
  delete, then continue     run freely; Ctrl-C stops the guest wherever it is
  quit                      ends GDB and QEMU, once you answer y"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that `arguments` (default: the process's own) name, and answer the exit status.

    An error that exogdb raises on purpose is printed as one sentence and is status 1.
    """
    _open_closed_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    ours, qemu = _split(words)
    options = _parser().parse_args(ours)
    try:
        status: int = options.body(options, qemu)
    except ExoError as error:
        print(f"exogdb: {error}", file=sys.stderr)
        return 1
    return status


def _open_closed_streams() -> None:
    """Make `/dev/null` of a standard stream that the caller closed (`<&-`): another file would take its place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8")
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")


def _split(words: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """What is before the first `--`, and what is after it for QEMU."""
    if "--" not in words:
        return words, ()
    position = words.index("--")
    return words[:position], tuple(words[position + 1 :])


class _ShowVersion(Action):
    """Looks the version up where it is asked for: that alone would take longer than all the rest of the start."""

    def __call__(self, parser: ArgumentParser, *_: object, **__: object) -> None:
        from importlib.metadata import version

        print(f"exogdb {version('exogdb')}")
        parser.exit()


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="exogdb", description="Look at the system-call path of an x86-64 kernel in QEMU.")
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="print the version and end")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    start = commands.add_parser(
        "run",
        help="boot a kernel in QEMU with GDB attached to it",
        usage="exogdb run KERNEL [options] [-- QEMU ARGUMENTS]",
        description="Boot KERNEL in QEMU, attach GDB with the plugin and all symbols, and stop at the first\n"
        "system call. Quitting GDB ends QEMU too.\n\nExample: exogdb run build/kernel/exo-os.elf --smp 2 -- -m 1G",
        formatter_class=RawDescriptionHelpFormatter,
    )
    _add_start_options(start)
    start.add_argument(
        "--attach", metavar="TARGET", help="GDB stub of a QEMU that runs already: a socket or HOST:PORT"
    )
    start.add_argument("--ex", metavar="COMMAND", action="append", default=[], help="a GDB command to begin with")
    start.set_defaults(body=_run)
    demo = commands.add_parser("demo", help="stop at an IPC send and show everything there is to see")
    _add_start_options(demo)
    demo.set_defaults(body=_run, attach=None, ex=DEMO_COMMANDS, farewell=DEMO_FAREWELL)
    report = commands.add_parser("report", help="make a page of a recorded trace")
    report.add_argument("file", metavar="FILE", type=Path, help="what `exo-syscall record FILE` wrote")
    report.add_argument("--output", metavar="HTML", type=Path, help="where the page goes (default FILE.html)")
    report.set_defaults(body=_report)
    return parser


def _add_start_options(parser: ArgumentParser) -> None:
    parser.add_argument("kernel", metavar="KERNEL", type=Path, help="ELF file that `qemu -kernel` boots")
    parser.add_argument("--smp", type=_positive, default=1, metavar="N", help="number of CPUs (default 1)")
    parser.add_argument("--append", default="", metavar="WORDS", help="the kernel's command line")
    parser.add_argument(
        "--accel", default="tcg", help="QEMU's accelerator (default tcg, which traces without stops)"
    )
    parser.add_argument("--entry", metavar="SYMBOL", help="where system calls enter, if exogdb cannot tell")
    parser.add_argument(
        "--symbols", metavar="FILE", type=Path, action="append", default=[], help="another ELF file with symbols"
    )
    parser.add_argument("--gdb", default="gdb", metavar="PROGRAM", help="GDB to use (default gdb)")
    parser.add_argument("--qemu", default="qemu-system-x86_64", metavar="PROGRAM", help="QEMU to use")
    parser.add_argument(
        "--seconds", type=float, default=120.0, metavar="N", help="limit without a terminal (default 120)"
    )
    parser.set_defaults(farewell="")


def _positive(text: str) -> int:
    """A whole number from 1 on; the ValueError of any other is argparse's affair."""
    value = int(text)
    if value < 1:
        raise ArgumentTypeError(f"{value} is less than 1")
    return value


def _run(options: Namespace, qemu: tuple[str, ...]) -> int:
    image = read_image(options.kernel, options.entry, tuple(options.symbols))
    machine = Machine(
        image.kernel,
        options.append,
        options.smp,
        accel=options.accel,
        stopped=True,
        qemu=options.qemu,
        # A guest that resets stands still to be looked at, and does not take QEMU along.
        extra=("-no-shutdown", *log_filter(image), *qemu),
    )
    interactive = sys.stdin.isatty()
    farewell = options.farewell if interactive else ""
    plan = Run(
        image, machine, options.gdb, options.attach, tuple(options.ex), farewell, interactive, options.seconds
    )
    return run(plan)


def _report(options: Namespace, _qemu: tuple[str, ...]) -> int:
    from exogdb.trace.record import RecordReader
    from exogdb.view.report import render_report

    output = options.output or options.file.with_name(options.file.name + ".html")
    try:
        with options.file.open(encoding="utf-8") as lines:
            reader = RecordReader(lines)
            page = render_report(reader)
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        where = error.filename or options.file
        raise UsageError(f"{where}: {error.strerror}; `exo-syscall record FILE` in GDB writes a trace") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{options.file} is no trace; `exo-syscall record FILE` in GDB writes one") from error
    print(f"{output}: {reader.calls:,} calls; open it in any browser, it needs no network")
    return 0
