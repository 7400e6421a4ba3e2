"""Joining returns to entries, by what names a thread and never by order alone.

An entry is seen before the stub has switched stacks and a return after it has come back from the dispatcher.
What both have: the address space, FS base (a thread's TLS pointer, where a kernel keeps one), and the
callee-saved registers, which the dispatcher must give back as they were. A return that fits exactly one open call
belongs to it. If several fit, the kernel stack decides: it belongs to one thread, and earlier returns have taught
whose it is. Only when that does not decide either is the newest taken, and the call is marked ambiguous.

    entry   -- exit --> NEVER_RETURNED
            ----------> IN_PROGRESS ---- a fitting return ------------------> RETURNED
                             |
                             +---------- its thread enters again -----------> NEVER_RETURNED (sigreturn)
    return that fits nothing:  the same kernel stack, another space: exec ---> RETURNED
                               result 0 and a parent's registers: fork ------> STARTED_BY_FORK
                               else ----------------------------------------> ENTERED_BEFORE
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from exogdb.trace.call import Call, CallState
from exogdb.trace.event import Entry, Return
from exogdb.trace.lineage import Lineage

__all__ = ["Notice", "NoticeKind", "Pairing"]

# A thread's user stack pointers at its calls stay within this distance; two threads' stacks do not.
_STACK_REACH = 64 * 1024
_REMEMBERED_STACKS = 4096
_REMEMBERED_FORKS = 64


class NoticeKind(Enum):
    """What there is to say about a call, in the order in which it becomes true."""

    WHOLE = "whole"
    """Entered and returned (or never to return) with nothing else on its CPU in between: one line."""
    UNFINISHED = "unfinished"
    """Still open, while its CPU already does something else."""
    RESUMED = "resumed"
    """Returned, after an UNFINISHED."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One line's worth of news about `call`, which goes on changing until it has returned."""

    kind: NoticeKind
    call: Call


_Thread: TypeAlias = tuple[int, int]


@dataclass(slots=True)
class _Open:
    """A call in progress, with what its return is recognised by."""

    call: Call
    thread: _Thread
    preserved: object
    kernel_stack_top: int | None
    is_announced: bool = False


@dataclass
class Pairing:
    """Feed it an engine's events in order; it yields notices.

    `registers_kept`: whether the entry stub leaves the callee-saved registers alone between the two points; if
    not, they are not compared. `fork_numbers` are calls that return twice, `exit_numbers` those that end a
    process, `exec_numbers` those that return in another address space. `newest` is the call entered last.
    """

    registers_kept: bool = True
    fork_numbers: frozenset[int] = frozenset()
    exit_numbers: frozenset[int] = frozenset()
    exec_numbers: frozenset[int] = frozenset()
    lineage: Lineage = field(default_factory=Lineage)
    ambiguous: int = 0
    entries: int = 0
    newest: Call | None = None
    _open: dict[int, list[_Open]] = field(default_factory=dict)
    _on_cpu: dict[int | None, _Open] = field(default_factory=dict)
    _owner_of_stack: "OrderedDict[int, tuple[_Thread, int | None]]" = field(default_factory=OrderedDict)
    _forks: "deque[_Open]" = field(default_factory=lambda: deque(maxlen=_REMEMBERED_FORKS))

    def feed(self, event: Entry | Return) -> Iterator[Notice]:
        """The news that `event` brings."""
        return self._enter(event) if isinstance(event, Entry) else self._leave(event)

    def finish(self) -> Iterator[Notice]:
        """At the end of the trace: calls that are still open and not yet announced, oldest first."""
        left = [each for calls in self._open.values() for each in calls if not each.is_announced]
        for each in sorted(left, key=lambda open_call: open_call.call.sequence):
            each.is_announced = True
            yield Notice(NoticeKind.UNFINISHED, each.call)

    def retract(self, cpu: int, space: int, user_rsp: int) -> Call | None:
        """Forget the call that `cpu` entered last: it has not begun. None if that was another call."""
        opened = self._on_cpu.get(cpu)
        if opened is None or opened.is_announced or (opened.call.space, opened.call.user_rsp) != (space, user_rsp):
            return None
        self._forget(opened)
        self.entries -= 1
        return opened.call

    def still_open(self) -> list[Call]:
        """Calls that have not returned, oldest first."""
        calls = [each.call for calls in self._open.values() for each in calls]
        return sorted(calls, key=lambda call: call.sequence)

    def _enter(self, entry: Entry) -> Iterator[Notice]:
        self.entries += 1
        thread = (entry.space, entry.fs_base)
        if not self._open.get(entry.space):
            self.lineage.bury(entry.space)
        abandoned = self._take_abandoned(entry, thread)
        if abandoned is not None:
            abandoned.call.state = CallState.NEVER_RETURNED
            kind = NoticeKind.RESUMED if abandoned.is_announced else NoticeKind.WHOLE
            abandoned.is_announced = True
            yield Notice(kind, abandoned.call)
        yield from self._announce_other(entry.cpu, None)
        call = _begin(self.entries, self.lineage.find(entry.space), entry)
        opened = _Open(call, thread, entry.preserved, entry.kernel_stack_top)
        self.newest = opened.call
        if entry.number in self.exit_numbers:
            opened.call.state = CallState.NEVER_RETURNED
            self.lineage.end(entry.space)
            yield Notice(NoticeKind.WHOLE, opened.call)
            return
        self._open.setdefault(entry.space, []).append(opened)
        self._on_cpu[entry.cpu] = opened
        if entry.number in self.fork_numbers:
            self._forks.append(opened)

    def _leave(self, event: Return) -> Iterator[Notice]:
        if not self._open.get(event.space):
            self.lineage.bury(event.space)
        opened = self._find_open(event) or self._find_executed(event)
        yield from self._announce_other(event.cpu, opened)
        if opened is None:
            yield Notice(NoticeKind.RESUMED, self._begin_unseen(event))
            return
        call = opened.call
        self._forget(opened)
        _complete(call, event)
        if not call.is_ambiguous:
            self._remember_stack(event, call.user_rsp)
        if event.space != call.space:
            self.lineage.execute(call.space, event.space)
        yield Notice(NoticeKind.RESUMED if opened.is_announced else NoticeKind.WHOLE, call)

    def _take_abandoned(self, entry: Entry, thread: _Thread) -> _Open | None:
        """The open call of the thread that enters now: it can only be one that did not return."""
        for opened in self._open.get(entry.space, ()):
            user_rsp = opened.call.user_rsp
            if opened.thread == thread and user_rsp is not None and abs(user_rsp - entry.user_rsp) < _STACK_REACH:
                self._forget(opened)
                return opened
        return None

    def _announce_other(self, cpu: int | None, subject: _Open | None) -> Iterator[Notice]:
        """The CPU does something for `subject`: whatever it did before is unfinished."""
        before = self._on_cpu.pop(cpu, None)
        if before is None or before is subject or before.is_announced:
            return
        if before.call.state is CallState.IN_PROGRESS:
            before.is_announced = True
            yield Notice(NoticeKind.UNFINISHED, before.call)

    def _find_open(self, event: Return) -> _Open | None:
        fitting = [each for each in self._open.get(event.space, ()) if self._fits(each, event)]
        if len(fitting) > 1 and event.kernel_stack is not None:
            owner = self._owner_of_stack.get(event.kernel_stack)
            if owner is not None:
                same = [each for each in fitting if _is_near(each.call.user_rsp, owner[1])]
                fitting = same or fitting
        if len(fitting) > 1:
            self.ambiguous += 1
            fitting[-1].call.is_ambiguous = True
        return fitting[-1] if fitting else None

    def _fits(self, opened: _Open, event: Return) -> bool:
        if opened.thread[1] != event.fs_base:
            return False
        if event.user_rsp is not None and event.user_rsp != opened.call.user_rsp:
            return False
        return self._keeps(opened, event)

    def _keeps(self, opened: _Open, event: Return) -> bool:
        return not self.registers_kept or opened.preserved == event.preserved

    def _find_executed(self, event: Return) -> _Open | None:
        """exec: the return is on the kernel stack of a thread whose call is open in another address space.

        An engine that has looked knows that stack (`kernel_stack_top`); else earlier returns have taught it. Where
        that stack has not been seen yet, an open exec with the same registers is looked for.
        """
        if self.lineage.knows(event.space):
            return None
        calls = [each for opened in self._open.values() for each in opened]
        if event.kernel_stack_top is not None:
            return next((each for each in calls if each.kernel_stack_top == event.kernel_stack_top), None)
        owner = self._owner_of_stack.get(event.kernel_stack) if event.kernel_stack is not None else None
        if owner is not None:
            fitting = [each for each in self._open.get(owner[0][0], ()) if _is_near(each.call.user_rsp, owner[1])]
            if len(fitting) == 1:
                return fitting[0]
        fitting = [each for each in calls if each.call.number in self.exec_numbers and self._keeps(each, event)]
        return fitting[0] if len(fitting) == 1 else None

    def _begin_unseen(self, event: Return) -> Call:
        """A return without an entry: a fork's child on its first way out, or a call from before the trace."""
        fork = next((each for each in reversed(self._forks) if self._is_child(each, event)), None)
        if fork is None:
            call = Call(sequence=0, cpu=event.cpu, space=event.space, process=self.lineage.find(event.space))
            _complete(call, event)
            call.state = CallState.ENTERED_BEFORE
            return call
        parent = fork.call
        call = Call(0, event.cpu, event.space, self.lineage.fork(parent.process, event.space), parent.number)
        call.user_rip, call.user_rsp = parent.user_rip, parent.user_rsp
        _complete(call, event)
        call.state = CallState.STARTED_BY_FORK
        self._remember_stack(event, call.user_rsp)
        return call

    def _is_child(self, fork: _Open, event: Return) -> bool:
        if event.result != 0 or self.lineage.knows(event.space) or event.fs_base != fork.thread[1]:
            return False
        return self._keeps(fork, event)

    def _remember_stack(self, event: Return, user_rsp: int | None) -> None:
        if event.kernel_stack is None:
            return
        self._owner_of_stack[event.kernel_stack] = ((event.space, event.fs_base), user_rsp)
        self._owner_of_stack.move_to_end(event.kernel_stack)
        if len(self._owner_of_stack) > _REMEMBERED_STACKS:
            self._owner_of_stack.popitem(last=False)

    def _forget(self, opened: _Open) -> None:
        calls = self._open[opened.call.space]
        calls.remove(opened)
        if not calls:
            del self._open[opened.call.space]
        if self._on_cpu.get(opened.call.cpu) is opened:
            del self._on_cpu[opened.call.cpu]


def _begin(sequence: int, process: int, entry: Entry) -> Call:
    return Call(
        sequence,
        entry.cpu,
        entry.space,
        process,
        entry.number,
        entry.arguments,
        entry.user_rip,
        entry.user_rsp,
        entry.time_ns,
    )


def _complete(call: Call, event: Return) -> None:
    call.state = CallState.RETURNED
    call.result = event.result
    call.exit_ns = event.time_ns
    call.return_cpu = event.cpu
    call.return_space = event.space
    call.kernel_stack = event.kernel_stack


def _is_near(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and abs(one - other) < _STACK_REACH
