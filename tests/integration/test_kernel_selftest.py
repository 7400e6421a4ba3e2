"""The reference kernel against its own programs: every call, good and bad, and many of them."""

import re

import pytest

from tests.harness.boot import boot

CHECKS = 271


@pytest.mark.parametrize(("variant", "smp"), [("", 1), ("", 8), ("debug", 4), ("today", 4)])
def test_every_call_does_what_it_should(variant: str, smp: int) -> None:
    # The less memory there is, the sooner it is used up, which is one of the checks.
    with boot("run=selftest", smp, variant, qemu=("-m", "32")) as qemu:
        status = qemu.wait_exit(60)
        serial = qemu.serial()
    assert f"exo-os: {smp} CPU" in serial
    last = re.findall(r"^selftest: (\d+) passed, (\d+) failed", serial, re.MULTILINE)
    assert [failed for _, failed in last] == ["0"], serial
    assert int(last[0][0]) >= CHECKS
    assert status == 0


def test_smep_and_smap_are_no_obstacle() -> None:
    with boot("run=selftest", qemu=("-cpu", "max", "-m", "32")) as qemu:
        assert qemu.wait_exit(60) == 0, qemu.serial()


@pytest.mark.parametrize(
    ("append", "status"), [("run=echo status=0", 0), ("run=echo status=3", 1), ("run=nothing", 1)]
)
def test_the_exit_status_is_the_first_programs(append: str, status: int) -> None:
    with boot(append) as qemu:
        assert qemu.wait_exit() == status, qemu.serial()


def test_many_calls_lose_no_memory() -> None:
    with boot("run=demo pace=none calls=200000", 2) as qemu:
        status = qemu.wait_exit(60)
        serial = qemu.serial()
    found = re.search(r"demo: (\d+) calls, free frames (\d+) before, (\d+) after", serial)
    assert found, serial
    assert int(found[1]) >= 200_000
    assert found[2] == found[3]
    assert status == 0


def bench(variant: str) -> dict[str, tuple[int, ...]]:
    """Instructions (minimum, median, maximum) by operation; with -icount one TSC tick is one instruction."""
    with boot("run=bench", variant=variant, qemu=("-icount", "shift=0")) as qemu:
        assert qemu.wait_exit(60) == 0, qemu.serial()
        assert "the design says: a call ~50 cycles, IPC ~100; of Linux: a call ~100, IPC ~1200" in qemu.serial()
        rows = re.findall(r"^bench: (.*?) +(\d+) +(\d+) +(\d+)\s*$", qemu.serial(), re.MULTILINE)
    return {row[0]: tuple(map(int, row[1:])) for row in rows}


def test_a_null_call_takes_at_most_sixty_instructions() -> None:
    lean, recorded = bench("truth-less"), bench("")
    assert lean["getpid"] == (lean["getpid"][0],) * 3, "with -icount every round is the same"
    assert lean["getpid"][0] - 1 <= 60, "SYSCALL itself is counted too"
    assert lean["getpid"][0] < recorded["getpid"][0] < lean["getpid"][0] + 100, "the record costs, but not much"
    assert set(lean) == {"unknown number", "getpid", "ipc_send, 8 bytes", "ipc_recv, 8 bytes"}
