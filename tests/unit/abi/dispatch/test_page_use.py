"""exogdb/abi/dispatch/page_use.py: who pays for a breakpoint in a page."""

from exogdb.abi.dispatch.page_use import PageUse
from exogdb.abi.dispatch.place import Cost
from exogdb.abi.dispatch.route import find_routes
from exogdb.abi.dispatch.trace import DispatcherEntry
from exogdb.abi.stub.location import InRegister
from tests.unit.abi.kernel_images import build_assembly

# A page for the dispatcher, one that both numbers run through, one for each number's own code, one for a handler.
PAGES = """
    .globl syscall_dispatch
    syscall_dispatch:
        jmp both
        .balign 4096
    both:
        cmp rdi, 1
        je one
        jmp two
        .balign 4096
    one: mov rax, 1
        ret
        .balign 4096
    two: jmp two_goes_on
        .balign 4096
    handler_of_one: ret
    two_goes_on: ret
"""


def test_what_every_call_runs_through_is_told_from_what_some_do() -> None:
    image = build_assembly(PAGES)
    at = image.symbols
    entry = DispatcherEntry(at["syscall_dispatch"], InRegister("rdi"))
    routes = find_routes(image, entry, [1, 2])
    pages = PageUse(routes, entry, hot=[], handlers={1: at["handler_of_one"]})
    assert pages.cost_of(1, at["one"]) is Cost.FREE
    assert pages.cost_of(1, at["both"]) is Cost.SHARED_PAGE, "beyond the dispatcher's own page"
    assert pages.cost_of(1, at["syscall_dispatch"]) is Cost.SHARED_PAGE
    assert PageUse(routes, entry, [at["one"]], {}).cost_of(1, at["one"]) is Cost.SHARED_PAGE, "the stub is there"
    routes = find_routes(image, entry, [1, 2, 3])
    pages = PageUse(routes, entry, hot=[], handlers={1: at["handler_of_one"], 3: at["one"]})
    assert pages.cost_of(1, at["one"]) is Cost.SHARED_WITH_CALLS
    assert pages.describe_others(1, at["one"]) == "3"
