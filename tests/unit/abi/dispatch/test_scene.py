"""exogdb/abi/dispatch/scene.py: which of several places is taken."""

import pytest

from exogdb.abi.dispatch.scene import first_of
from exogdb.abi.stub.location import InFrame, InRegister, OnStack
from tests.unit.abi.dispatch.test_plan import plan_of
from tests.unit.abi.kernel_images import build_c


def test_a_register_is_taken_if_there_is_one_and_always_the_same() -> None:
    assert first_of({OnStack(8), InFrame("rdi", 0), InRegister("rsi")}) == InRegister("rsi"), "it needs no read"
    assert first_of({InRegister("rsi"), InRegister("rdi")}) == InRegister("rdi")
    assert first_of({OnStack(8), OnStack(16)}) == OnStack(16)
    assert first_of(set()) is None


SETS_MOST_REGISTERS = """
#define ALONE __attribute__((noinline))
volatile long tracing, sink;
ALONE long sys_exit(long a) { sink = a; return 1; }
ALONE long sys_send(long a, long b) { sink = a + b; return 3; }
ALONE long sys_recv(long a, long b) { sink = a - b; return 4; }
ALONE void trace(long number) {
  __asm__ volatile("mov $0xdead, %%eax; mov $0xdead, %%edx; mov $0xdead, %%ecx" ::: "rax", "rdx", "rcx");
}
long syscall_dispatch(long number, long a, long b) {
  if (__builtin_expect(tracing, 0)) trace(number);
  switch (number) {
    case 1: return sys_exit(a);
    case 101: return sys_send(a, b);
    case 102: return sys_recv(a, b);
  }
  return -38;
}
"""


@pytest.mark.parametrize("optimisation", ["-O0", "-O1", "-O2"])
def test_at_a_handler_arguments_are_where_the_calling_convention_has_them(optimisation: str) -> None:
    """What a register happens to hold as well is gone if the kernel comes by another way."""
    image = build_c(SETS_MOST_REGISTERS, optimisation)
    place = plan_of(image, (1, 101, 102))[101]
    assert place.address == image.symbols["sys_send"]
    assert place.arguments[:2] == (InRegister("rdi"), InRegister("rsi"))


def test_what_is_likely_comes_first() -> None:
    assert first_of({InRegister("rax"), InRegister("rdi")}, (OnStack(8), InRegister("rdi"))) == InRegister("rdi")
    assert first_of({InRegister("rax"), OnStack(8)}, (OnStack(8),)) == OnStack(8)
