"""exogdb/abi/dispatch/scene.py: which of several places is taken."""

from exogdb.abi.dispatch.scene import first_of
from exogdb.abi.stub.location import InFrame, InRegister, OnStack


def test_a_register_is_taken_if_there_is_one_and_always_the_same() -> None:
    assert first_of({OnStack(8), InFrame("rdi", 0), InRegister("rsi")}) == InRegister("rsi"), "it needs no read"
    assert first_of({InRegister("rsi"), InRegister("rdi")}) == InRegister("rdi")
    assert first_of({OnStack(8), OnStack(16)}) == OnStack(16)
    assert first_of(set()) is None
