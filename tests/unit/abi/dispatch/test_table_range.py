"""Adjacent table entries are watched together where the CPU tells which of them was read."""

from itertools import pairwise

from exogdb.abi.dispatch.place import Plan
from exogdb.abi.stub.location import InRegister
from tests.unit.abi.dispatch.test_plan import plan_of
from tests.unit.abi.dispatch.test_route import HANDLERS, NUMBERS, rust_dispatcher
from tests.unit.abi.kernel_images import Image, build_assembly, build_rust

TABLE = """
    .globl syscall_dispatch
    syscall_dispatch:
        cmp rdi, {count}
        jae 1f
        {load}
        jmp rax
    1:  mov rax, -1
        ret
    {arms}
    .data
    table: .quad {names}
"""


def table_plan(load: str, count: int = 8) -> Plan:
    """`count` numbers with an arm each, all of them in one page, behind a table that `load` reads into rax."""
    arms = "\n".join(f"a{n}: mov rax, {n}\nret" for n in range(count))
    names = ", ".join(f"a{n}" for n in range(count))
    image = build_assembly(TABLE.format(load=load, arms=arms, names=names, count=count))
    return plan_of(image, range(count))


def read_word(image: Image, address: int) -> int:
    """What is in the table at `address`."""
    return int.from_bytes(image.read(address, 8), "little")


def test_a_jump_tells_by_where_it_goes_or_by_the_register_that_has_the_number() -> None:
    image = build_rust(rust_dispatcher(), "opt-level=3")
    plan = plan_of(image, NUMBERS, hot=[image.symbols[handler] + 64 for handler in HANDLERS.values()])
    (entries,) = plan.ranges(plan.values())
    assert entries.numbers == (0, 1, 2, 3, 4, 300, 301, 302, 303)
    assert entries.size == sum(place.entry.size for place in plan.values() if place.entry is not None)
    arms = {n: read_word(image, entry.address) for n, place in plan.items() if (entry := place.entry) is not None}
    assert arms[1] == arms[2]
    assert {n: entries.tell(arm) for n, arm in arms.items()} == {n: n for n in arms} | {
        1: InRegister("rdi"),
        2: InRegister("rdi"),
    }
    assert entries.tell(image.symbols["syscall_dispatch"]) is None, "nothing has been read there"


def test_a_load_tells_by_what_still_holds_the_number() -> None:
    plan = table_plan("mov rax, [table + 8*rdi]")
    (entries,) = plan.ranges(plan.values())
    assert (entries.numbers, entries.size) == (tuple(range(8)), 64)
    ((address, where),) = entries.told
    assert where == InRegister("rdi")
    assert address < plan[0].address


def test_a_range_is_no_longer_than_what_gdb_reads_at_each_stop() -> None:
    plan = table_plan("mov rax, [table + 8*rdi]", 130)
    assert [each.size for each in plan.ranges(plan.values())] == [1024, 16]


def test_where_nothing_holds_it_each_entry_is_watched_alone() -> None:
    plan = table_plan("lea rdi, [table + 8*rdi]\n mov rax, [rdi]")
    ranges = plan.ranges(plan.values())
    assert [(each.numbers, each.size) for each in ranges] == [((n,), 8) for n in range(8)]
    assert [each.tell(0) for each in ranges] == list(range(8)), "the read itself tells it"


def test_an_entry_that_is_not_wanted_is_in_no_range() -> None:
    plan = table_plan("mov rax, [table + 8*rdi]")
    ranges = plan.ranges(plan[number] for number in (0, 1, 2, 4, 6, 7))
    assert [each.numbers for each in ranges] == [(0, 1, 2), (4,), (6, 7)]
    assert all(one.address + one.size < other.address for one, other in pairwise(ranges))
