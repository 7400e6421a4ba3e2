"""exogdb/abi/dispatch/coverage.py: what belongs to one number alone."""

from exogdb.abi.dispatch.coverage import Coverage
from exogdb.abi.dispatch.trace import Block, Call, TableRead, Trace

SHARED, FIRST, SECOND, OUT = Block(0x10, 0x20), Block(0x20, 0x30), Block(0x40, 0x50), Block(0x60, 0x70)
CALL = Call(0x100, 0x2B)


def test_a_block_is_private_if_no_other_run_executes_any_of_it() -> None:
    inside = Block(0x44, 0x50)  # another number jumps into the middle of it
    one, two = Trace(1, [SHARED, FIRST]), Trace(2, [SHARED, SECOND])
    assert Coverage({1: [one], 2: [two]}).private_of(2, two) == [SECOND.start]
    three = Trace(3, [SHARED, inside])
    coverage = Coverage({1: [one], 2: [two], 3: [three]})
    assert coverage.private_of(1, one) == [FIRST.start]
    assert coverage.private_of(2, two) == [SECOND.start], "its beginning is still its own"
    assert coverage.private_of(3, three) == []


def test_what_comes_behind_anothers_call_is_everybodys_way_out() -> None:
    one = Trace(1, [SHARED, FIRST, OUT, Block(0x80, 0x90)])
    other = Trace(2, [SHARED, SECOND], call=CALL, after=[OUT])
    assert Coverage({1: [one], 2: [other]}).private_of(1, one) == [FIRST.start]
    alone = Trace(1, one.blocks, after=[OUT])
    assert Coverage({1: [alone]}).private_of(1, alone) == [block.start for block in one.blocks], "its own way out"


def test_a_function_that_is_called_or_passed_over_counts_for_the_caller() -> None:
    caller, passer = Trace(1, [SHARED, FIRST], call=CALL), Trace(2, [SHARED, SECOND], passed={CALL.target})
    assert Coverage({1: [caller], 2: [Trace(2, [SHARED])]}).is_own_callee(1, CALL.target)
    assert not Coverage({1: [caller], 2: [passer]}).is_own_callee(1, CALL.target)


def test_an_entry_is_a_numbers_own_if_no_other_reads_a_byte_of_it() -> None:
    entry, next_entry, straddling = TableRead(0x1000, 8), TableRead(0x1008, 8), TableRead(0x1004, 8)
    one = Trace(1, [SHARED], [(0, entry)])
    assert Coverage({1: [one], 2: [Trace(2, [SHARED], [(0, next_entry)])]}).own_reads(1, [entry]) == [entry]
    assert Coverage({1: [one], 2: [Trace(2, [SHARED], [(0, straddling)])]}).own_reads(1, [entry]) == []


def test_several_runs_of_one_key_share_what_all_of_them_pass() -> None:
    runs = [Trace(7, [SHARED, FIRST, SECOND]), Trace(8, [SHARED, SECOND])]
    coverage = Coverage({-1: runs, 1: [Trace(1, [SHARED])]})
    assert coverage.common_private(-1, runs) == [SECOND.start]
