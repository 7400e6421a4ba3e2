"""IA32_STAR against the manuals, and against GDTs that are wrong in known ways."""

from exogdb.x86.gdt import decode_gdt
from exogdb.x86.star import check_star, decode_star

KERNEL_CODE, KERNEL_DATA = 0x00AF9B000000FFFF, 0x00CF93000000FFFF
USER_CODE32, USER_DATA, USER_CODE64 = 0x00CFFB000000FFFF, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF
USER_CODE16 = USER_CODE32 & ~(1 << 54)


def findings(star: int, *descriptors: int) -> tuple[str, ...]:
    table = decode_gdt(b"".join(d.to_bytes(8, "little") for d in descriptors), base=0x1000)
    return check_star(decode_star(star), table.find_descriptor)


def test_selectors_of_linux() -> None:
    star = decode_star(0x0023001000000000)
    assert (star.syscall_cs.value, star.syscall_ss.value) == (0x10, 0x18)
    assert (star.sysret64_cs.value, star.sysret_ss.value, star.sysret32_cs.value) == (0x33, 0x2B, 0x23)
    assert star.sysret_ss_amd.value == 0x2B


def test_a_correct_gdt_has_only_the_rpl_to_complain_about() -> None:
    good = (0, KERNEL_CODE, KERNEL_DATA, USER_CODE32, USER_DATA, USER_CODE64)
    assert findings(0x001B000800000000, *good) == ()
    (rpl,) = findings(0x0018000800000000, *good)
    assert "RPL 0" in rpl
    assert "AMD" in rpl


def test_missing_32_bit_code_is_no_mistake_of_a_64_bit_kernel() -> None:
    assert findings(0x001B000800000000, 0, KERNEL_CODE, KERNEL_DATA, 0, USER_DATA, USER_CODE64) == ()


def test_each_wrong_descriptor_is_named() -> None:
    wrong_dpl = findings(0x001B000800000000, 0, KERNEL_CODE, KERNEL_DATA, USER_CODE32, KERNEL_DATA, USER_CODE64)
    assert wrong_dpl == ("SYSRETQ/L SS 0x0023 (GDT 4, RPL 3) has DPL 0, expected 3",)
    not_long = findings(0x001B000800000000, 0, USER_CODE32, KERNEL_DATA, USER_CODE32, USER_DATA, USER_CODE64)
    assert [text.split(") ")[1] for text in not_long] == [
        "has L = 0: not a 64-bit code segment",
        "has DPL 3, expected 0",
    ]
    swapped = findings(0x001B000800000000, 0, KERNEL_CODE, KERNEL_DATA, USER_CODE32, USER_CODE64, USER_DATA)
    assert "SYSRETQ CS 0x002b (GDT 5, RPL 3) is data, not a code segment" in swapped
    assert "SYSRETQ/L SS 0x0023 (GDT 4, RPL 3) is 64-bit code, not a data segment" in swapped
    swapped_code = findings(0x001B000800000000, 0, KERNEL_CODE, KERNEL_DATA, USER_CODE64, USER_DATA, USER_CODE64)
    assert len(swapped_code) == 1
    assert swapped_code[0].startswith("SYSRETL CS 0x001b (GDT 3, RPL 3) has L = 1: ")
    narrow = findings(0x001B000800000000, 0, KERNEL_CODE, KERNEL_DATA, USER_CODE16, USER_DATA, USER_CODE64)
    assert len(narrow) == 1
    assert narrow[0].startswith("SYSRETL CS 0x001b (GDT 3, RPL 3) has D = 0: ")
    outside = findings(0x001B000800000000, 0, KERNEL_CODE, KERNEL_DATA, 0, USER_DATA)
    assert outside == ("SYSRETQ CS 0x002b (GDT 5, RPL 3) names no descriptor in the table",)
    absent = findings(0x001B000800000000, 0, KERNEL_CODE & ~(1 << 47), KERNEL_DATA, 0, USER_DATA, USER_CODE64)
    assert absent == ("SYSCALL CS 0x0008 (GDT 1, RPL 0) is not present",)


def test_star_that_was_never_written() -> None:
    texts = findings(0, 0, KERNEL_CODE)
    assert texts[0] == "SYSCALL CS 0x0000 (null, RPL 0) is a null selector"


def test_rpl_in_the_syscall_half_reaches_ss_only() -> None:
    star = decode_star(0x001B000B00000000)
    assert (star.syscall_cs.rpl, star.syscall_ss.rpl) == (0, 3)
    good = (0, KERNEL_CODE, KERNEL_DATA, USER_CODE32, USER_DATA, USER_CODE64)
    assert any("STAR[47:32] has RPL 3" in text for text in findings(0x001B000B00000000, *good))


def test_ldt_bit() -> None:
    assert any("names the LDT" in text for text in findings(0x001F000800000000, 0, KERNEL_CODE, KERNEL_DATA))
