"""Transcripts in the documentation, taken from a real session so that they cannot rot.

A Markdown file names the commands in a comment, and the block after it is what they print::

    <!-- transcript
    exo-gs
    -->
    ```text
    (gdb) exo-gs
    ...
    ```

All blocks of a file are one session, which starts at the guest's first system call, in an empty directory. Of a
command with `~ ` in front, which times the guest, only the first line is compared.
`make transcripts` takes those anew that are not current, `python -m tests.harness.transcript FILE...` those of
FILE; a test compares what exogdb's commands print now with what is written, apart from addresses.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from exogdb.launch.image import read_image
from exogdb.launch.logfilter import log_filter
from tests.harness.gdb import Gdb
from tests.harness.kernel import ROOT, build_kernel
from tests.harness.session import open_guest, private_directory

__all__ = ["documents", "for_each_block", "normalise", "retake"]

BLOCK = re.compile(r"(<!-- transcript\n(?P<commands>.*?)-->\n+```text\n)(?P<text>.*?)(```)", re.DOTALL)
# The compiler's hash in a symbol, which GDB 16 leaves out.
HASH = re.compile(r"::h[0-9a-f]{16}\b")
# Numbers in hexadecimal, offsets behind a symbol, line numbers.
VARYING = re.compile(r"0x[0-9a-f]+|(?<=\+)\d+|(?<=:)\d+\b")
WIDTH = 110
VARIES = "~ "
# Guest time that follows the instructions makes the guest do the same every time.
OPTIONS = ("-icount", "shift=0,sleep=off")


def documents() -> list[Path]:
    """Every Markdown file of the project that has a transcript."""
    candidates = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in candidates if path.is_file() and BLOCK.search(path.read_text())]


def for_each_block(text: str) -> Iterator[str]:
    """What must be equal of each transcript in a document, see `normalise`."""
    for found in BLOCK.finditer(text):
        lines = found["commands"].splitlines()
        yield normalise(found["text"], [line.removeprefix(VARIES) for line in lines if line.startswith(VARIES)])


def retake(text: str) -> str:
    """The document `text` with every transcript taken anew."""
    options = (*OPTIONS, *log_filter(read_image(build_kernel().elf)))
    with private_directory() as directory, open_guest(stopped=True, qemu=options) as guest:
        gdb = guest.gdb
        gdb.run(f"set width {WIDTH}")
        gdb.run(f"directory {ROOT}")
        gdb.run(f"cd {directory}")
        gdb.run("thbreak syscall_entry")
        gdb.run("continue")
        return BLOCK.sub(lambda found: found[1] + _take(gdb, found["commands"]) + found[4], text)


def normalise(transcript: str, varying: Sequence[str] = ()) -> str:
    """What must be equal: the output of exogdb's own commands, apart from addresses and the blanks beside them.

    Of the commands in `varying` that is their first line. What GDB says of a stop or a source line differs from
    compiler to compiler.
    """
    compared = []
    for part in transcript.split("(gdb) ")[1:]:
        command, *output = part.splitlines()[:2] if part.partition("\n")[0] in varying else part.splitlines()
        if command.startswith("exo-"):
            compared += [command, *output]
    anonymous = VARYING.sub("_", HASH.sub("", "\n".join(compared)))
    return "\n".join(" ".join(line.split()) for line in anonymous.splitlines())


def _take(gdb: Gdb, commands: str) -> str:
    shown = []
    for line in commands.splitlines():
        command = line.removeprefix(VARIES)
        reply = gdb.reply(command)
        output = (reply.out + reply.err).strip("\n").replace(f"{ROOT}/", "")
        shown.append(f"(gdb) {command}\n" + "".join(f"{each.rstrip()}\n" for each in output.splitlines()))
    return "".join(shown)


def main(names: list[str]) -> int:
    """Rewrite the transcripts of the files called `names`; without names, of documents that are not current."""
    for path in [Path(name).resolve() for name in names] or documents():
        old = path.read_text()
        new = retake(old)
        is_current = not names and list(for_each_block(old)) == list(for_each_block(new))
        if not is_current:
            path.write_text(new)
        print(f"{path.relative_to(ROOT)}: {'is current' if is_current else 'taken anew'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
