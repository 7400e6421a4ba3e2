"""A call goes another way than the one that was emulated: with other arguments, or a number of its own."""

import pytest

from exogdb.abi.dispatch.place import PlaceKind
from exogdb.abi.dispatch.route import UNKNOWN
from tests.unit.abi.dispatch.one_call import addresses_passed
from tests.unit.abi.dispatch.test_plan import plan_of
from tests.unit.abi.kernel_images import build_assembly, build_c

HANDLERS = """
#define ALONE __attribute__((noinline))
volatile long sink;
ALONE long sys_exit(long a) { sink = a; return 1; }
ALONE long sys_getpid(void) { sink = 2; return 2; }
ALONE long sys_send(long a, long b) { sink = a + b; return 3; }
ALONE long sys_recv(long a, long b) { sink = a - b; return 4; }
"""
CHECKS_IN_ITS_ARM = """
long syscall_dispatch(long number, long a, long b) {
  switch (number) {
    case 1: return sys_exit(a);
    case 4: return sys_getpid();
    case 101: if (!a) return -14; return sys_send(a, b);
    case 102: if (a < 0) return -22; return sys_recv(a, b);
  }
  return -38;
}
"""
CHECKS_IN_A_SHARED_ARM = """
ALONE long sys_either(long number, long a) { sink = number; return a; }
long syscall_dispatch(long number, long a, long b) {
  switch (number) {
    case 1: return sys_exit(a);
    case 4: return sys_getpid();
    case 101: case 102: if (!a) return -14; return sys_either(number, a);
  }
  return -38;
}
"""
HAS_MORE = """
long syscall_dispatch(long number, long a, long b) {
  switch (number) {
    case 1: return sys_exit(a);
    case 4: return sys_getpid();
    case 101: return sys_send(a, b);
    case 500: return sys_recv(a, b);
  }
  return -38;
}
"""
HAS_A_TABLE = """
typedef long (*Handler)(long, long);
const Handler table[6] = {0, (Handler)sys_exit, 0, sys_send, (Handler)sys_getpid, sys_recv};
long syscall_dispatch(long number, long a, long b) {
  if ((unsigned long)number >= 6 || !table[number]) return -38;
  return table[number](a, b);
}
"""


@pytest.mark.parametrize("optimisation", ["-O0", "-O1", "-O2"])
@pytest.mark.parametrize("source", [CHECKS_IN_ITS_ARM, CHECKS_IN_A_SHARED_ARM])
def test_a_call_that_its_arm_turns_away_comes_by(source: str, optimisation: str) -> None:
    image = build_c(HANDLERS + source, optimisation)
    plan = plan_of(image, (1, 4, 101, 102))
    for number, arguments in ((101, (7, 5)), (101, (0, 5)), (102, (7, 5)), (102, (-1, 5)), (102, (0, 5))):
        assert plan[number].address in addresses_passed(image, number, arguments)


@pytest.mark.parametrize("optimisation", ["-O0", "-O2"])
@pytest.mark.parametrize(
    ("source", "table", "number"),
    [
        (HAS_MORE, (1, 4), 500),
        (HAS_MORE, (1, 4), 101),
        (HAS_MORE, (1, 4, 101), 500),
        (HAS_MORE, (), 1),
        (HAS_A_TABLE, (1, 4), 3),
    ],
)
def test_unknown_is_also_what_the_kernel_handles_and_the_table_lacks(
    source: str, table: tuple[int, ...], number: int, optimisation: str
) -> None:
    image = build_c(HANDLERS + source, optimisation)
    place = plan_of(image, table)[UNKNOWN]
    for each in (number, 77, 1 << 40):
        assert place.address in addresses_passed(image, each, (7, 5))


@pytest.mark.parametrize("optimisation", ["-O0", "-O2"])
def test_unknown_has_a_place_of_its_own_where_every_comparison_was_seen_both_ways(optimisation: str) -> None:
    image = build_c(HANDLERS + HAS_MORE, optimisation)
    place = plan_of(image, (1, 4, 101, 500))[UNKNOWN]
    assert place.kind is PlaceKind.ADDRESS
    assert place.address in addresses_passed(image, 77)
    assert place.address not in addresses_passed(image, 101, (7, 5))


def test_where_nothing_holds_the_number_unknown_is_compared_at_the_dispatcher() -> None:
    image = build_assembly("""
        .globl syscall_dispatch
        syscall_dispatch:
            cmp rdi, 1
            je one
            cmp rdi, 2
            je two
            xor edi, edi
            call sys_nothing
            ret
        one: call sys_one
            ret
        two: call sys_two
            ret
        sys_one: mov eax, 1
            ret
        sys_two: mov eax, 2
            ret
        sys_nothing: mov eax, -38
            ret
    """)
    assert plan_of(image, (1, 2))[UNKNOWN].kind is PlaceKind.DISPATCHER
