"""Named bits: nothing that is set disappears."""

from exogdb.x86.flags import Flag, decode_flags, unknown_bits

TABLE = (Flag("LOW", 0, "first"), Flag("HIGH", 63, "last"))


def test_known_bits_in_table_order_then_the_rest() -> None:
    assert decode_flags((1 << 63) | 1 | 0x18, TABLE) == ("LOW", "HIGH", "0x18")


def test_zero_has_no_names() -> None:
    assert decode_flags(0, TABLE) == ()


def test_known_mask_hides_fields_decoded_elsewhere() -> None:
    assert unknown_bits(0x19, TABLE, known=0x10) == 0x8
