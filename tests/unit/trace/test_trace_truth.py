"""tests/harness/trace_truth.py: traces that follow each other are compared as one."""

from exogdb.trace.call import Call
from exogdb.trace.record import Header, Record
from tests.harness.trace_truth import join_records


def test_the_next_traces_calls_come_after_those_of_a_trace_with_holes() -> None:
    """Calls that had not begun at the end are taken back, and they need not have been the last ones."""
    header = Header(engine="execution log", clock="host", kernel="exo-os.elf", cpus=1)
    first = Record(header, [Call(sequence, cpu=0, space=0x1000, process=1) for sequence in (1, 2, 5)])
    second = Record(header, [Call(sequence, cpu=0, space=0x1000, process=1) for sequence in (1, 2)])
    assert [call.sequence for call in join_records([first, second]).calls] == [1, 2, 5, 6, 7]
