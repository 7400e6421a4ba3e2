"""Which instructions need a stack that is aligned to 16 bytes."""

import pytest

from exogdb.abi.vector_use import find_aligned_stack_use


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("0f290424", 0x1000),  # movaps [rsp], xmm0
        ("0f2845f0", 0x1000),  # movaps xmm0, [rbp-16]
        ("660f6f442420", 0x1000),  # movdqa xmm0, [rsp+32]
        ("c5f8290424", 0x1000),  # vmovaps [rsp], xmm0
        ("90 0f290424", 0x1001),
        ("0f110424", None),  # movups [rsp], xmm0
        ("0f2907", None),  # movaps [rdi], xmm0: not the stack
        ("0f28c1", None),  # movaps xmm0, xmm1
        ("06 06 0f290424", 0x1002),  # bytes that are no instruction in 64-bit mode
        ("", None),
    ],
)
def test_aligned_moves_on_the_stack_are_found(code: str, expected: int | None) -> None:
    assert find_aligned_stack_use(bytes.fromhex(code), 0x1000) == expected
