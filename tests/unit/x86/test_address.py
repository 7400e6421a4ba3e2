"""Canonical addresses."""

from hypothesis import given
from hypothesis import strategies as st

from exogdb.x86.address import canonical_form, is_canonical, is_upper_half


@given(st.integers(0, (1 << 64) - 1), st.sampled_from((48, 57)))
def test_canonical_form_is_canonical_and_keeps_the_low_bits(address: int, bits: int) -> None:
    form = canonical_form(address, bits)
    assert is_canonical(form, bits)
    assert (form ^ address) & (1 << bits) - 1 == 0
    assert is_canonical(address, bits) == (form == address)


def test_edges() -> None:
    assert is_canonical(0xFFFF800000000000)
    assert not is_canonical(0xFFFF7FFFFFFFFFFF)
    assert is_canonical(0xFFFF7FFFFFFFFFFF, 57)
    assert is_upper_half(1 << 63)
