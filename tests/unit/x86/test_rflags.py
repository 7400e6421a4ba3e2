"""RFLAGS at SYSCALL and SYSRET, by the pseudo-code of the manuals."""

from hypothesis import given
from hypothesis import strategies as st

from exogdb.x86.rflags import RFLAGS, decode_fmask, decode_rflags, rflags_after_sysret

U64 = st.integers(0, (1 << 64) - 1)


@given(U64)
def test_no_bit_is_lost(value: int) -> None:
    total = value & 2
    masks = {flag.name: flag.mask for flag in RFLAGS}
    for name in decode_rflags(value):
        if name.startswith("IOPL="):
            total |= int(name[5:]) << 12
        else:
            total |= masks[name] if name in masks else int(name, 16)
    assert total == value


@given(U64)
def test_sysret_cannot_set_vm_or_rf(r11: int) -> None:
    assert rflags_after_sysret(r11) & 0x30000 == 0
    assert rflags_after_sysret(r11) & 2


def test_partial_iopl_mask_is_told_apart() -> None:
    assert "IOPL" in decode_fmask(0x3000).clears
    assert "IOPL & 1" in decode_fmask(0x1000).clears
