"""tests/harness/transcript.py: what a transcript may differ in."""

import pytest

from tests.harness.transcript import normalise

WRITTEN = """(gdb) continue
Breakpoint 1, main () at main.rs:32
(gdb) exo-msr
LSTAR  0xffffffff80106000  qmp  syscall_entry
(gdb) exo-gs
  +0x020  process   0xffffffff801548c0  KERNEL::h8ebf8464c1736423+6768
"""


def test_addresses_hashes_and_gdbs_own_words_may_differ() -> None:
    taken = (
        WRITTEN.replace("80106000", "80110bc0")
        .replace("main.rs:32", "main.rs:33")
        .replace("::h8ebf8464c1736423", "")
    )
    assert normalise(taken.replace("+6768", "+16")) == normalise(WRITTEN)


@pytest.mark.parametrize(
    ("old", "new"), [("qmp", "rdmsr"), ("process", "task"), ("(gdb) exo-gs", "(gdb) exo-tss")]
)
def test_words_may_not(old: str, new: str) -> None:
    assert normalise(WRITTEN.replace(old, new)) != normalise(WRITTEN)


def test_a_vanished_output_is_seen() -> None:
    assert normalise(WRITTEN.partition("(gdb) exo-gs")[0]) != normalise(WRITTEN)


def test_of_a_command_that_times_the_guest_the_first_line_counts() -> None:
    written = "(gdb) exo-syscall summary --for 1\ntracing by stops\n  7 calls\n(gdb) exo-gs\nCPU 0\n"
    varying = ["exo-syscall summary --for 1"]
    assert normalise(written.replace("7", "8"), varying) == normalise(written, varying)
    assert normalise(written.replace("7", "8")) != normalise(written)
    assert normalise(written.replace("stops", "log"), varying) != normalise(written, varying)
    assert normalise(written.replace("CPU 0", "CPU 1"), varying) != normalise(written, varying)
