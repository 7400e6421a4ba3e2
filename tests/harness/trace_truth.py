"""A trace against the kernel's own record of the same calls: every difference in words.

Each CPU's calls have an order of their own, which trace and record share: a CPU has its interrupts off from the
stub's first instruction until it has written the call down. So the n-th call of a CPU in the one is the n-th in
the other, provided that neither lacks one; that is looked at first.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from exogdb.trace.call import Call, CallState
from exogdb.trace.record import Record
from tests.harness.truth import IN_PROGRESS, NEVER_RETURNS, RETURNED, CallTruth

__all__ = [
    "count_proven_parents",
    "count_results",
    "find_differences",
    "find_orphans",
    "find_wrong_processes",
    "join_records",
]

_STATES = {
    CallState.RETURNED: RETURNED,
    CallState.NEVER_RETURNED: NEVER_RETURNS,
    CallState.IN_PROGRESS: IN_PROGRESS,
}
_FORK = 1
_TRACE = 1_000_000  # above the process numbers of one trace
_BELOW_FRAME = 16  # bytes on the kernel stack at the return: padding and the sixth argument


def find_differences(record: Record, truths: Sequence[CallTruth], below_frame: int = _BELOW_FRAME) -> list[str]:
    """What the trace says otherwise than `truths`, which must be all the calls of that time. Empty if nothing.

    `below_frame` bytes lie below the saved frame where the dispatcher returns to.
    """
    return [*_compare_counts(record, truths), *_compare_calls(record, truths, below_frame)]


def find_wrong_processes(record: Record, truths: Sequence[CallTruth]) -> list[str]:
    """The trace's process numbers are its own: one for each pid, and one pid for each.

    Nor may any process have another parent than the one whose fork returned its pid.
    """
    made = _parents(truths)
    named: dict[int, set[int]] = defaultdict(set)
    numbered: dict[tuple[int, int], set[int]] = defaultdict(set)
    children = set()
    for call, truth in _pairs(record, truths):
        named[call.process].add(truth.process)
        numbered[truth.process, call.process // _TRACE].add(call.process)
        if call.parent is not None:
            children.add((call.parent.process, truth.process))
    wrong = [f"P{process} is pids {sorted(pids)}" for process, pids in named.items() if len(pids) > 1]
    wrong += [f"pid {pid} is P{sorted(each)}" for (pid, _), each in numbered.items() if len(each) > 1]
    return wrong + [f"pid {pid} is no child of P{p}" for p, pid in children if named[p] != {made.get(pid)}]


def find_orphans(record: Record, truths: Sequence[CallTruth]) -> set[int]:
    """The pids whose calls all lack a parent, though one was made after the fork that returned the pid.

    Before that return nothing tells a child from another one's that is made at the same time.
    """
    last_entry: dict[int, int] = {}
    fork_return: dict[int, int] = {}
    with_parent = set()
    for call, truth in _pairs(record, truths):
        if call.entry_ns is not None:
            last_entry[truth.process] = max(call.entry_ns, last_entry.get(truth.process, 0))
        if call.parent is not None:
            with_parent.add(truth.process)
        if call.number == _FORK and call.state is CallState.RETURNED and call.exit_ns is not None:
            fork_return[truth.result] = call.exit_ns
    grown = {pid for pid, returned in fork_return.items() if last_entry.get(pid, 0) > returned}
    return grown - with_parent


def count_proven_parents(record: Record) -> int:
    """Processes whose parent is known, and is no guess."""
    return len({call.process for call in record.calls if call.parent is not None and not call.parent.is_guess})


def join_records(records: Sequence[Record]) -> Record:
    """Traces that follow each other as if they were one; process numbers of the n-th begin at n million.

    A return whose entry was not seen ends the call that an earlier trace left open in its address space: in the
    reference kernel that is one at most. A CPU that one trace has left at the return point is seen there again.
    """
    joined = Record(records[0].header, end=records[-1].end)
    returned: dict[int, int | None] = {}
    for number, record in enumerate(records):
        # Not their number: a call that had not begun at the end of a trace is taken back, and leaves a hole.
        entered = max((call.sequence for call in joined.calls), default=0)
        open_calls = {call.space: call for call in joined.calls if call.state is CallState.IN_PROGRESS}
        for call in record.calls:
            opened = open_calls.pop(call.space, None) if call.sequence == 0 else None
            if opened is not None:
                opened.state, opened.result, opened.kernel_stack = (
                    CallState.RETURNED,
                    call.result,
                    call.kernel_stack,
                )
            elif call.sequence or returned.get(call.space, -1) != call.result:
                call.sequence += entered if call.sequence else 0
                call.process += number * _TRACE
                if call.parent is not None:
                    call.parent = replace(call.parent, process=call.parent.process + number * _TRACE)
                joined.calls.append(call)
        returned |= {call.space: call.result for call in record.calls}
    return joined


def count_results(record: Record) -> int:
    """Calls of which the trace has entry, return and result."""
    return sum(call.state is CallState.RETURNED and call.result is not None for call in record.calls)


def _parents(truths: Sequence[CallTruth]) -> dict[int, int]:
    """Pid to the pid of the process whose fork returned it."""
    forks = (truth for truth in truths if truth.number == _FORK and truth.state == RETURNED)
    return {truth.result: truth.process for truth in forks if truth.result < 1 << 63}


def _compare_counts(record: Record, truths: Sequence[CallTruth]) -> Iterator[str]:
    sequences = [truth.sequence for truth in truths]
    if sequences and sequences != list(range(sequences[0], sequences[0] + len(sequences))):
        yield "the record has holes"
    for cpu, calls in _entered(record).items():
        recorded = len(_on_cpu(truths, cpu))
        if len(calls) != recorded:
            yield f"CPU {cpu}: {len(calls)} calls traced, {recorded} recorded"
    for call in record.calls:
        if call.sequence == 0 or call.is_ambiguous:
            yield f"a guess or a return without its entry: {call}"


def _compare_calls(record: Record, truths: Sequence[CallTruth], below_frame: int) -> Iterator[str]:
    for call, truth in _pairs(record, truths):
        entered = (call.number, call.arguments, call.user_rip, call.user_rsp)
        if entered != (truth.number, truth.arguments, truth.user_rip, truth.user_rsp):
            yield f"entered otherwise: {call} {truth}"
        if _STATES[call.state] != truth.state:
            yield f"another state: {call} {truth}"
        elif call.state is CallState.RETURNED and call.result not in (None, truth.result):
            yield f"another result: {call} {truth}"
        if call.kernel_stack not in (None, truth.frame - below_frame):
            yield f"the return of another call: {call} {truth}"


def _pairs(record: Record, truths: Sequence[CallTruth]) -> Iterator[tuple[Call, CallTruth]]:
    for cpu, calls in _entered(record).items():
        yield from zip(calls, _on_cpu(truths, cpu), strict=False)


def _entered(record: Record) -> dict[int | None, list[Call]]:
    found: dict[int | None, list[Call]] = defaultdict(list)
    for call in sorted(record.calls, key=lambda call: call.sequence):
        if call.sequence:
            found[call.cpu].append(call)
    return found


def _on_cpu(truths: Sequence[CallTruth], cpu: int | None) -> list[CallTruth]:
    return [truth for truth in truths if truth.cpu == cpu]
