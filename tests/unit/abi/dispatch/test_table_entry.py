"""Only what says where a call goes is the entry of a table, and a plan is as good as its entries."""

from collections.abc import Iterable
from dataclasses import replace

from exogdb.abi.dispatch.place import PlaceKind, Plan, PlanCache
from exogdb.abi.dispatch.trace import DispatcherEntry
from exogdb.abi.stub.location import InRegister
from tests.unit.abi.dispatch.one_call import addresses_passed
from tests.unit.abi.dispatch.test_plan import plan_of
from tests.unit.abi.dispatch.test_route import C_ARGUMENTS
from tests.unit.abi.dispatch.test_untaken import HANDLERS
from tests.unit.abi.kernel_images import Image, build_c

COUNTS_PER_PROCESS = """
typedef long (*Handler)(long, long);
struct process { long id; long calls[8]; } one, two;
struct process *current = &one;
const Handler table[6] = {0, (Handler)sys_exit, sys_send, sys_send, (Handler)sys_getpid, sys_recv};
long syscall_dispatch(long number, long a, long b) {
  if ((unsigned long)number >= 6 || !number) return -38;
  Handler handler = ((const Handler volatile *)table)[number];
  ((volatile long *)current->calls)[number]++;
  return handler(a, b);
}
"""
DESCRIBED = """
typedef long (*Handler)(long, long);
struct call { long flags; Handler handler; };
const struct call send = {1, sys_send}, recv = {2, sys_recv}, again = {3, sys_send};
const struct call *const table[4] = {0, &send, &recv, &again};
long syscall_dispatch(long number, long a, long b) {
  if ((unsigned long)number >= 4 || !number) return -38;
  return ((const struct call *const volatile *)table)[number]->handler(a, b);
}
"""
CAN_CHANGE = """
typedef long (*Handler)(long, long);
Handler table[6] = {0, (Handler)sys_exit, sys_send, sys_recv, (Handler)sys_getpid, 0};
long syscall_dispatch(long number, long a, long b) {
  if ((unsigned long)number >= 6 || !table[number]) return -38;
  return table[number](a, b);
}
"""


def entry_of(image: Image, numbers: Iterable[int], number: int) -> int:
    place = plan_of(image, numbers)[number]
    assert place.kind is PlaceKind.TABLE_ENTRY
    assert place.entry is not None
    return place.entry.address


def test_the_entry_is_the_tables_and_not_the_running_processes() -> None:
    image = build_c(HANDLERS + COUNTS_PER_PROCESS, "-O2")
    assert entry_of(image, (1, 2, 3, 4, 5), 3) == image.symbols["table"] + 3 * 8


def test_a_table_may_lead_to_descriptors() -> None:
    image = build_c(HANDLERS + DESCRIBED, "-O2")
    assert entry_of(image, (1, 2, 3), 3) in (image.symbols["table"] + 3 * 8, image.symbols["again"] + 8)


def test_an_entry_that_changes_makes_another_plan() -> None:
    image = build_c(HANDLERS + CAN_CHANGE, "-O2")
    entry, cache = DispatcherEntry(image.symbols["syscall_dispatch"], InRegister("rdi"), C_ARGUMENTS), PlanCache()

    def plan_for(memory: Image) -> Plan:
        return cache.get(memory, "build", entry, lambda: plan_of(memory, (1, 2, 3, 4)))

    changed = with_word(image, image.symbols["table"] + 2 * 8, image.symbols["sys_recv"])
    assert plan_for(image) is plan_for(image)
    for memory in (image, changed):
        assert plan_for(memory)[2].address in addresses_passed(memory, 2, (7, 5))


def with_word(image: Image, address: int, word: int) -> Image:
    page = address & -0x1000
    data = bytearray(image.pages[page])
    data[address - page : address - page + 8] = word.to_bytes(8, "little")
    return replace(image, pages=image.pages | {page: bytes(data)})
