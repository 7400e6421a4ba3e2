"""IA32_PAT: eight memory types, chosen by the PAT, PCD and PWT bits of a page-table entry.

Source: Intel SDM Vol. 3A, Page Attribute Table (encodings, value after reset).
"""

__all__ = ["PAT_AT_RESET", "decode_pat"]

PAT_AT_RESET = 0x0007040600070406
MEMORY_TYPES = {0: "UC", 1: "WC", 4: "WT", 5: "WP", 6: "WB", 7: "UC-"}


def _memory_type(entry: int) -> str:
    reserved = entry & ~7
    if reserved or entry not in MEMORY_TYPES:
        return f"reserved({entry:#x})"
    return MEMORY_TYPES[entry]


def decode_pat(value: int) -> tuple[str, ...]:
    """PA0 to PA7 by memory type; encodings that the CPU reserves as `reserved(0x..)`.

    >>> decode_pat(PAT_AT_RESET)
    ('WB', 'WT', 'UC-', 'UC', 'WB', 'WT', 'UC-', 'UC')
    """
    return tuple(_memory_type(value >> 8 * entry & 0xFF) for entry in range(8))
