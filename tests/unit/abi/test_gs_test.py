"""exogdb/abi/gs_test.py: handlers that ask the active GS base for its sign, and others that read it."""

import pytest

from exogdb.abi.gs_test import find_gs_sign_test
from tests.unit.abi.stub_fixture import assemble

ASKS = {
    "the upper half of the MSR": "asks: rdmsr\n    test edx, edx\n    js 1f",
    "RDGSBASE and its sign": "asks: rdgsbase rax\n    test rax, rax\n    js 1f",
    "RDGSBASE and bit 63": "asks: rdgsbase rbx\n    bt rbx, 63\n    jc 1f",
    "RDGSBASE against a bound": "asks: rdgsbase rbx\n    cmp rbx, rcx\n    jae 1f",
}
ASKS_NOT = {
    "the base kept, and the kernel's set": "rdgsbase rbx\n    wrgsbase rax\n    test eax, eax\n    js 1f",
    "the base that is known to be the kernel's": "rdgsbase rax\n    cmp rax, rbx\n    je 1f",
    "half of the base": "rdgsbase eax\n    test eax, eax\n    js 1f",
}


def find_in(lines: str) -> tuple[int | None, dict[str, int]]:
    """What is found in a handler with `lines` in it, and its labels."""
    handler = f"syscall_entry:\n    push rax\n    mov ecx, 0xc0000101\n    {lines}\n    swapgs\n1:  iretq\n"
    stub = assemble(handler)
    return find_gs_sign_test(stub.memory, stub.labels["syscall_entry"]), stub.labels


@pytest.mark.parametrize("way", ASKS)
def test_a_sign_that_decides_is_found_where_it_is_read(way: str) -> None:
    found, labels = find_in(ASKS[way])
    assert found == labels["asks"]


@pytest.mark.parametrize("way", ASKS_NOT)
def test_a_base_that_is_read_for_something_else_is_no_test(way: str) -> None:
    assert find_in(ASKS_NOT[way])[0] is None
