"""Device-state streams written by real QEMUs: read right, or refused with a reason."""

import gzip
import json
import re
import struct
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exogdb.errors import FormatError
from exogdb.target.qemu.vmstate import decode_device_state, for_each_section
from exogdb.target.qemu.vmstate_x86 import CpuState

STREAMS = sorted(Path(__file__).with_name("device_state").glob("*.gz"))
OF_KERNEL = [path for path in STREAMS if path.stem.endswith("-kernel")]
AT_RESET = [path for path in STREAMS if path.stem.endswith("-reset")]


@cache
def stream(name: str) -> bytes:
    return gzip.decompress(Path(__file__).with_name("device_state").joinpath(f"{name}.gz").read_bytes())


def cpus_by_name(path: Path) -> int:
    found = re.search(r"-(\d+)-\w+$", path.stem)
    assert found
    return int(found[1])


def test_fixtures_of_both_versions_are_there() -> None:
    kinds = {path.stem for path in STREAMS}
    for version in ("7.2", "10.0"):
        for machine in ("pc-1", "pc-2", "pc-8", "q35-2", "microvm-2", "max-2"):
            assert f"qemu{version}-{machine}-reset" in kinds
        for machine in ("pc-8", "pc-3", "q35-2"):
            assert f"qemu{version}-{machine}-kernel" in kinds


@pytest.mark.parametrize("path", AT_RESET, ids=lambda path: path.stem)
def test_state_after_reset_is_the_one_of_the_manual(path: Path) -> None:
    """Intel SDM Vol. 3A, Processor State After Reset; QEMU's bootstrap CPU is CPU 0."""
    cpus = decode_device_state(stream(path.stem))
    assert [cpu.index for cpu in cpus] == list(range(cpus_by_name(path)))
    for cpu in cpus:
        assert cpu.registers["rip"] == 0xFFF0
        assert cpu.registers["rflags"] == 2
        assert cpu.registers["cr0"] == 0x60000010
        assert cpu.registers["dr6"] == 0xFFFF0FF0
        assert cpu.segments["cs"].selector == 0xF000
        assert cpu.segments["cs"].base == 0xFFFF0000
        assert cpu.segments["idtr"].limit == 0xFFFF
        assert cpu.msrs["IA32_PAT"] == 0x0007040600070406
        assert cpu.msrs["IA32_APIC_BASE"] == (0xFEE00900 if cpu.index == 0 else 0xFEE00800)
        assert cpu.msrs["IA32_EFER"] == 0
        assert cpu.halted == (cpu.index > 0)
        assert cpu.cpl == 0


@pytest.mark.parametrize("path", OF_KERNEL, ids=lambda path: path.stem)
def test_state_of_a_running_kernel_is_what_it_wrote_down(path: Path) -> None:
    """A kernel that gives every CPU its own LSTAR. Beside each stream is that kernel's own record, from RAM."""
    truths = json.loads(path.with_suffix(".json").read_text())
    cpus = decode_device_state(stream(path.stem))
    assert len(cpus) == len(truths) == cpus_by_name(path)
    for cpu, truth in zip(cpus, truths, strict=True):
        for name in ("EFER", "STAR", "LSTAR", "CSTAR", "FMASK"):
            assert cpu.msrs[f"IA32_{name}"] == int(truth[name.lower()], 16), name
        assert int(truth["gs_base"], 16) in (cpu.msrs["IA32_GS_BASE"], cpu.msrs["IA32_KERNEL_GS_BASE"])
        tables = (cpu.segments["gdtr"].base, cpu.segments["idtr"].base, cpu.segments["tr"].base)
        assert tables == tuple(int(truth[name], 16) for name in ("gdt", "idt", "tss"))
        assert bool(cpu.msrs["IA32_APIC_BASE"] & 0x100) == (cpu.index == 0)
    assert len({cpu.msrs["IA32_LSTAR"] for cpu in cpus}) > 1


def test_sections_are_found_by_name() -> None:
    names = [section.name for section in for_each_section(stream("qemu7.2-pc-2-reset"))]
    assert names[:5] == ["timer", "cpu_common", "cpu", "kvm-tpr-opt", "apic"]
    assert names.count("cpu") == 2


def values_of(cpu: CpuState) -> dict[str, int]:
    values = {**cpu.registers, **cpu.msrs, "halted": cpu.halted}
    for name, segment in cpu.segments.items():
        parts = (segment.selector, segment.base, segment.limit, segment.flags)
        values |= {f"{name}[{n}]": part for n, part in enumerate(parts)}
    return values


def wrong_values(name: str, cpus: tuple[CpuState, ...]) -> list[str]:
    """Values that differ from those of the undamaged stream. One that is not there any more is not wrong."""
    truth = [values_of(cpu) for cpu in decode_device_state(stream(name))]
    found = [values_of(cpu) for cpu in cpus]
    assert len(found) == len(truth)
    return [key for old, new in zip(truth, found, strict=True) for key in new if new[key] != old.get(key)]


def test_every_field_comes_from_its_own_place() -> None:
    """The five SYSCALL registers follow EFER; writing known numbers there must show up under their names."""
    data = bytearray(stream("qemu7.2-pc-2-reset"))
    cpu = [section for section in for_each_section(bytes(data)) if section.name == "cpu"][1]
    pat = cpu.body.index(struct.pack(">Q", 0x0007040600070406))
    first = cpu.offset + pat - 4 - 6 * 8
    struct.pack_into(">6Q", data, first, 0x500, 2, 3, 4, 5, 6)
    hflags = cpu.offset + 18 * 8
    struct.pack_into(">I", data, hflags, 1 << 14)
    first_cpu, second_cpu = decode_device_state(bytes(data))
    names = ("EFER", "STAR", "LSTAR", "CSTAR", "FMASK", "KERNEL_GS_BASE")
    assert [second_cpu.msrs[f"IA32_{name}"] for name in names] == [0x500, 2, 3, 4, 5, 6]
    assert first_cpu == decode_device_state(stream("qemu7.2-pc-2-reset"))[0]


@given(st.integers(0, 15002), st.sampled_from(["qemu7.2-pc-2-reset", "qemu10.0-pc-2-reset"]))
@settings(max_examples=200, deadline=None)
def test_truncated_streams_are_refused(size: int, name: str) -> None:
    with pytest.raises(FormatError):
        decode_device_state(stream(name)[:size])


def cpu_bytes(data: bytes) -> set[int]:
    """Offsets of everything that a CPU's state is taken from, the instance number that names the CPU included."""
    wanted = [section for section in for_each_section(data) if section.name in ("cpu", "cpu_common", "apic")]
    return {at for section in wanted for at in range(section.offset - 8, section.offset + len(section.body))}


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_byte_is_refused_or_changes_only_the_value_it_is_in(data: st.DataObject) -> None:
    original = stream("qemu7.2-max-2-reset")
    at = data.draw(st.integers(0, len(original) - 1))
    damaged = bytearray(original)
    damaged[at] ^= data.draw(st.integers(1, 255))
    try:
        cpus = decode_device_state(bytes(damaged))
    except FormatError:
        return
    # FS and GS base appear twice: as a segment's base and as an MSR.
    wrong = wrong_values("qemu7.2-max-2-reset", cpus)
    assert len(wrong) <= 2
    assert not wrong or at in cpu_bytes(original)


def test_a_header_that_swallows_a_cpu_is_refused() -> None:
    damaged = bytearray(stream("qemu7.2-max-2-reset"))
    damaged[12] ^= 5  # the length of the machine's name: the sections behind it are skipped
    with pytest.raises(FormatError):
        decode_device_state(bytes(damaged))


@given(st.binary(max_size=400), st.integers(8, 15000))
@settings(max_examples=200, deadline=None)
def test_inserted_bytes_never_shift_a_value(extra: bytes, at: int) -> None:
    original = stream("qemu7.2-pc-2-reset")
    damaged = original[:at] + extra + original[at:]
    try:
        cpus = decode_device_state(damaged)
    except FormatError:
        return
    assert wrong_values("qemu7.2-pc-2-reset", cpus) == []


def test_a_device_that_imitates_a_section_is_refused() -> None:
    """A guest can write bytes into a device; a fake end of section must not be believed."""
    original = stream("qemu7.2-pc-2-reset")
    fw_cfg = next(section for section in for_each_section(original) if section.name == "fw_cfg")
    fake = struct.pack(">BI", 0x7E, fw_cfg.section_id) + b"\x04" + struct.pack(">IB3sII", 999, 3, b"cpu", 0, 12)
    damaged = original[: fw_cfg.offset + 4] + fake + original[fw_cfg.offset + 4 :]
    with pytest.raises(FormatError, match="more than one place"):
        decode_device_state(damaged)


def test_other_versions_are_refused_not_guessed() -> None:
    original = stream("qemu7.2-pc-1-reset")
    header = b"\x03cpu" + struct.pack(">II", 0, 12)
    newer = original.replace(header, b"\x03cpu" + struct.pack(">II", 0, 13))
    with pytest.raises(FormatError, match="version 13, exogdb knows 12"):
        decode_device_state(newer)
    with pytest.raises(FormatError, match="QEVM"):
        decode_device_state(b"\x7fELF" + original[4:])
    with pytest.raises(FormatError, match="no 'cpu' section"):
        decode_device_state(b"QEVM\0\0\0\x03\0")
