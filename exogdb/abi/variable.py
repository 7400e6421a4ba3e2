"""Where debug info has a variable, as GDB's `info address` says it, and whether calls leave that place alone.

A function that has called another one no longer has what was in the registers that a call may change (System V
ABI, x86-64, 3.2.1). GDB shows what they hold now all the same: it looks at the call, where they were still right.
"""

import re

__all__ = ["KEPT_BY_CALLS", "find_registers", "is_kept_by_calls"]

KEPT_BY_CALLS = {"rbx", "rbp", "rsp", "r12", "r13", "r14", "r15"}
_RANGE = re.compile(r"Range (0x[0-9a-f]+)-(0x[0-9a-f]+): (.*?)(?=\n\s*Range 0x|\Z)", re.DOTALL)
# What a register held when the function began, found by the caller's debug info and not in that register.
_ENTRY_VALUE = re.compile(r"DW_OP_(?:GNU_)?entry_value\s+\d+: DW_OP_reg\d+ \[\$\w+\]")
_REGISTER = re.compile(r"\$(\w+)")


def is_kept_by_calls(text: str, pc: int) -> bool:
    """Whether the variable that `text` describes is, for code at `pc`, where a function that is called leaves it.

    >>> is_kept_by_calls('Symbol "n" is a variable in $rdi.', 0x10)
    False
    >>> is_kept_by_calls('Symbol "n" is a variable at frame base reg $rbp offset 16+-24.', 0x10)
    True
    >>> ranges = 'multi-location:\\nRange 0x10-0x20: a variable in $rdi\\nRange 0x20-0x30: a variable in $rbx\\n.'
    >>> is_kept_by_calls(ranges, 0x1f), is_kept_by_calls(ranges, 0x20), is_kept_by_calls(ranges, 0x30)
    (False, True, False)

    A description that is not understood is no promise: False.
    """
    here = _find_place(text, pc)
    return bool(here) and set(_REGISTER.findall(here)) <= KEPT_BY_CALLS


def find_registers(text: str, pc: int) -> set[str]:
    """The registers that lead to the variable that `text` describes, for code at `pc`.

    >>> find_registers('Symbol "n" is a variable at frame base reg $rbp offset 16+-24.', 0x10)
    {'rbp'}
    """
    return set(_REGISTER.findall(_find_place(text, pc)))


def _find_place(text: str, pc: int) -> str:
    """The part of `text` that is about code at `pc`; empty where there is none, or it is not understood."""
    here = text
    if "multi-location" in text:
        ranges = ((int(one[1], 16), int(one[2], 16), one[3]) for one in _RANGE.finditer(text))
        here = next((words for low, high, words in ranges if low <= pc < high), "")
    elif not here.startswith("Symbol "):
        return ""
    return _ENTRY_VALUE.sub("", here)
