"""`exo-gs` as text and JSON."""

from dataclasses import replace

from exogdb.abi.gs import GsReport, GsState
from exogdb.abi.percpu import Aggregate, PerCpuBlock, PerCpuField
from exogdb.reading import Reading, Unavailable
from exogdb.view.gs import CpuGs, gs_to_json, render_gs
from exogdb.view.style import PLAIN, Style

KERNEL, USER = 0xFFFFFFFF80152440, 0x7FFFF0000800
BLOCK = PerCpuBlock(
    KERNEL,
    "type PerCpu",
    (
        PerCpuField("kernel_rsp", 0, 8, "u64", Reading(0xFFFFFFFFD0020000, "memory")),
        PerCpuField("tss", 8, 104, "Tss", Aggregate(0xFFFFFFFF80152448)),
        PerCpuField("current", 112, 8, "u64", Unavailable("0xffffffff801524b0 is not mapped")),
    ),
)
IN_KERNEL = GsReport(GsState.KERNEL, "kernel", "kernel", KERNEL, USER, "CPL is 0")
ROW = CpuGs(0, 0, KERNEL, USER, IN_KERNEL, BLOCK, {KERNEL: "PERCPU"})


def test_both_bases_with_their_owner() -> None:
    text = render_gs([ROW], PLAIN)
    active, waiting = (line for line in text.splitlines() if "GS_BASE" in line)
    assert active.split()[0] == "active"
    assert "the kernel's  PERCPU" in active
    assert "the user's" in waiting
    assert "kernel_rsp  0xffffffffd0020000" in text
    assert "Tss, 104 bytes at 0xffffffff80152448" in text
    assert "unavailable (0xffffffff801524b0 is not mapped)" in text


def test_a_number_that_ends_one_object_and_begins_another_is_told_by_both_a_pointer_is_not() -> None:
    top = 0xFFFFFFFF80160000
    fields = tuple(
        PerCpuField(name, 8 * n, 8, kind, Reading(top, "memory"))
        for n, (name, kind) in enumerate((("rsp", "u64"), ("current", "*mut Process"), ("gs:0x10", "")))
    )
    row = replace(
        ROW, percpu=PerCpuBlock(KERNEL, "type PerCpu", fields), names={top: "NEXT"}, ends={top: "STACK+64"}
    )
    rsp, current, slot = render_gs([row], PLAIN).splitlines()[-3:]
    assert rsp.endswith("  NEXT, or STACK+64")
    assert slot.endswith("  NEXT, or STACK+64")
    assert current.endswith("0xffffffff80160000  NEXT")
    (rsp, *_) = render_gs([replace(row, names={})], PLAIN).splitlines()[-3:]
    assert rsp.endswith("0xffffffff80160000  STACK+64")


def test_the_per_cpu_block_fits_the_terminal() -> None:
    lines = render_gs([ROW], Style(width=50)).splitlines()
    start = lines.index("    +0x008  tss         Tss, 104 bytes at")
    assert lines[start + 1] == "                        0xffffffff80152448"


def test_json() -> None:
    (cpu,) = gs_to_json([ROW])["cpus"]
    assert (cpu["kernel"], cpu["user"], cpu["active"]) == (hex(KERNEL), hex(USER), "kernel")
    assert cpu["percpu"] == {
        "kernel_rsp": "0xffffffffd0020000",
        "tss": {"type": "Tss", "size": 104, "address": "0xffffffff80152448"},
        "current": {"unavailable": "0xffffffff801524b0 is not mapped"},
    }


def test_unknown_owners_are_not_guessed() -> None:
    unknown = GsReport(GsState.UNKNOWN, "unknown", "unknown", None, None, "paths meet")
    row = replace(ROW, report=unknown, percpu=Unavailable("which base is the kernel's is not known"))
    text = render_gs([row], PLAIN)
    assert text.count("owner unknown") == 2
    assert "unavailable (which base is the kernel's is not known)" in text
    (cpu,) = gs_to_json([row])["cpus"]
    assert cpu["kernel"] == {"unavailable": "paths meet"}


def test_a_process_that_has_the_kernels_base() -> None:
    """Both bases equal: neither line may claim that one of them is only the user's."""
    same = GsReport(GsState.KERNEL, "kernel", "kernel", KERNEL, KERNEL, "position")
    text = render_gs([replace(ROW, kernel_gs_base=KERNEL, report=same)], PLAIN)
    active, waiting = (line for line in text.splitlines() if "GS_BASE" in line)
    assert "the kernel's" in active
    assert "the user's" in waiting
