"""The way out that all numbers take: no number is told apart on it, and what is alike is run once."""

import pytest

from exogdb.abi.dispatch.repeat import Repeat
from exogdb.abi.dispatch.route import UNKNOWN, find_routes
from exogdb.abi.dispatch.trace import Ending, Trace
from tests.unit.abi.dispatch.test_route import ONE_OR_TWO, entry_of
from tests.unit.abi.kernel_images import build_assembly


def many_blocks(number: int) -> str:
    return "".join(f"test rax, rax\njz at_{n}\nat_{n}: nop\n" for n in range(number))


def way_out(blocks: int) -> str:
    """Numbers 1 and 2 have handlers, 3 has none; on the way out are calls in calls, and many blocks."""
    work = many_blocks(blocks)
    return f"""
        {ONE_OR_TWO}
            mov rax, -38
            jmp out
        one: call first
            jmp out
        two: call second
            jmp out
        out: call work_0
            ret
        work_0: call work_1
            ret
        work_1: call work_2
            ret
        work_2:
            {work}
            ret
        first: ret
        second: ret
    """


def test_calls_on_the_way_out_tell_no_numbers_apart() -> None:
    image = build_assembly(way_out(1))
    routes = find_routes(image, entry_of(image), [1, 2, 3])
    assert [routes[number].private for number in (1, 2)] == [(image.symbols["one"],), (image.symbols["two"],)]
    assert {routes[number].ending for number in (3, UNKNOWN)} == {Ending.WAY_OUT}
    assert image.symbols["work_1"] not in {block.start for block in routes[3].blocks}
    assert routes.keys_at(image.symbols["work_0"]) == {1, 2, 3, UNKNOWN}


def test_a_way_out_that_is_alike_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    complete = Repeat.complete

    def note(self: Repeat, trace: Trace) -> None:
        lengths.append(len(trace.blocks))
        complete(self, trace)
        assert len(trace.blocks) > 200

    monkeypatch.setattr(Repeat, "complete", note)
    image = build_assembly(way_out(200).replace("out: call work_0", "out: jmp work_2"))
    routes = find_routes(image, entry_of(image), [1, 2, 3])
    assert max(lengths) > 200
    assert sorted(lengths)[-3] < 60  # one that succeeds and one that fails
    assert routes.keys_at(image.symbols["at_199"]) == {1, 2, 3, UNKNOWN}


def test_a_way_out_is_run_again_once_more_calls_are_followed() -> None:
    """5 and 6 are told apart in a function that everybody's way out calls, too, far behind where all are alike."""
    work = many_blocks(50)
    image = build_assembly(
        f"""
        {ONE_OR_TWO}
            cmp rdi, 5
            je both
            cmp rdi, 6
            je both
            mov rax, -38
            jmp out
        one: call first
            jmp out
        two: call second
            jmp out
        both: call nested
            jmp out
        out:
            {work}
            xor edi, edi
            call nested
            ret
        nested:
            cmp rdi, 5
            je five
        other: ret
        five: ret
        first: ret
        second: ret
        """
    )
    routes = find_routes(image, entry_of(image), [1, 2, 5, 6])
    assert image.symbols["other"] not in routes[6].private
    assert routes.keys_at(image.symbols["other"]) == {1, 2, 5, 6, UNKNOWN}
