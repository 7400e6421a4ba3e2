"""The MSR table: names, numbers and decoders agree with the manuals."""

import pytest

from exogdb.errors import UsageError
from exogdb.x86.msr import MSRS, SYSCALL_MSRS, check_msr, decode_msr, find_msr, parse_msr


def test_the_eight_that_decide_about_syscall() -> None:
    assert [(spec.number, spec.name) for spec in SYSCALL_MSRS] == [
        (0xC0000080, "IA32_EFER"),
        (0xC0000081, "IA32_STAR"),
        (0xC0000082, "IA32_LSTAR"),
        (0xC0000083, "IA32_CSTAR"),
        (0xC0000084, "IA32_FMASK"),
        (0xC0000100, "IA32_FS_BASE"),
        (0xC0000101, "IA32_GS_BASE"),
        (0xC0000102, "IA32_KERNEL_GS_BASE"),
    ]


def test_numbers_and_names_are_unique() -> None:
    names = [name.upper() for spec in MSRS for name in {spec.name, spec.short, *spec.aliases}]
    assert len(set(names)) == len(names)
    assert len({spec.number for spec in MSRS}) == len(MSRS)


@pytest.mark.parametrize("spec", MSRS, ids=lambda spec: spec.name)
def test_every_entry_says_what_it_is_and_where_that_is_written(spec: object) -> None:
    assert spec in MSRS
    found = next(entry for entry in MSRS if entry is spec)
    assert found.meaning
    assert found.source.startswith(("SDM Vol. ", "APM Vol. "))


def test_lookup() -> None:
    assert find_msr("sfmask") is find_msr("IA32_FMASK")
    assert find_msr("kernel-gs-base") is find_msr(0xC0000102)
    assert find_msr("nosuch") is None
    assert parse_msr("0xc0000082").name == "IA32_LSTAR"
    assert parse_msr("0x12345").name == "MSR_0x12345"
    with pytest.raises(UsageError, match="no MSR is called 'lstra'"):
        parse_msr("lstra")
    with pytest.raises(UsageError, match="32 bits"):
        parse_msr("0x100000000")


def test_unknown_efer_bits_stay_visible() -> None:
    efer = parse_msr("efer")
    assert decode_msr(efer, 0x8000_0000_0000_0D01) == ("SCE", "LME", "LMA", "NXE", "0x8000000000000000")
    assert check_msr(efer, 0xD01) == ()
    assert [text.split(" ")[0] for text in check_msr(efer, 0x500)] == ["SCE", "NXE"]


def test_registers_without_fields_have_no_decoder() -> None:
    assert decode_msr(parse_msr("lstar"), 0xFFFFFFFF80001000) is None
    assert check_msr(parse_msr("lstar"), 0xFFFFFFFF80001000) == ()


def test_fmask_findings() -> None:
    assert len(check_msr(parse_msr("fmask"), 0x200)) == 4
    assert check_msr(parse_msr("fmask"), 0x257FD5) == ()
