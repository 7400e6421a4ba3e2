"""Joining returns to entries, by what names a thread and never by order alone.

An entry is seen before the stub has switched stacks and a return after it has come back from the dispatcher.
What both have: the address space, the callee-saved registers, which the dispatcher must give back as they were,
and FS base, a thread's pointer where a kernel keeps one (though a call may set it). A return that fits exactly one
open call belongs to it. If several fit, or none does, the kernel stack decides: it carries one call at a time, and
earlier returns have taught whose it is (`exogdb.trace.threads`). Only when that does not decide either is the
newest taken, and the call is marked ambiguous.

    entry   -- exit --> NEVER_RETURNED
            ----------> IN_PROGRESS ---- a fitting return ------------------> RETURNED
                             |
                             +---------- its thread is in a later call -----> NEVER_RETURNED
    return that fits nothing:  the same kernel stack, another space: exec ---> RETURNED
                               result 0 and a parent's registers: fork ------> STARTED_BY_FORK
                               else ----------------------------------------> ENTERED_BEFORE

What QEMU's log has twice is left out (`exogdb.trace.repeats`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from exogdb.trace.call import Call, CallState
from exogdb.trace.event import Entry, Event, InHandler, Return
from exogdb.trace.forks import Forks
from exogdb.trace.lineage import Ending, Lineage
from exogdb.trace.notice import Notice, NoticeKind
from exogdb.trace.open_call import OpenCall, begin, complete
from exogdb.trace.repeats import Repeats
from exogdb.trace.threads import KernelStacks
from exogdb.trace.waits import find_reaped

__all__ = ["Pairing"]


@dataclass
class Pairing:
    """Feed it an engine's events in order; it yields notices.

    `registers_kept`: whether the entry stub leaves the callee-saved registers alone between the two points; if
    not, they are not compared. `fork_numbers` are calls that return twice, `exit_numbers` those that end a
    process, `exec_numbers` those that return in another address space, `wait_numbers` those that return the number
    of a process that is gone. Of the forks those in `thread_numbers` may also make a thread, of the exits those in
    `thread_exit_numbers` end one alone. `newest` is the call entered last. `generation` changes whenever an
    address space may have got another process.
    """

    registers_kept: bool = True
    fork_numbers: frozenset[int] = frozenset()
    exit_numbers: frozenset[int] = frozenset()
    exec_numbers: frozenset[int] = frozenset()
    wait_numbers: frozenset[int] = frozenset()
    thread_numbers: frozenset[int] = frozenset()
    thread_exit_numbers: frozenset[int] = frozenset()
    lineage: Lineage = field(init=False)
    ambiguous: int = 0
    entries: int = 0
    returns: int = 0
    newest: Call | None = None
    generation: int = 0
    repeats: Repeats = field(init=False)
    _open: dict[int, list[OpenCall]] = field(default_factory=dict)
    _on_cpu: dict[int | None, OpenCall] = field(default_factory=dict)
    _stacks: KernelStacks = field(default_factory=KernelStacks)
    _fork_returns: int = 0
    _executing: int = 0

    def __post_init__(self) -> None:
        self.repeats = Repeats(self.exit_numbers)
        self.lineage = Lineage(Forks(self.thread_numbers))

    def feed(self, event: Event) -> Sequence[Notice]:
        """The news that `event` brings."""
        news: list[Notice] = []
        if isinstance(event, Entry):
            self._enter(event, news)
        elif isinstance(event, Return):
            self._leave(event, news)
        else:
            self._note_handler(event)
        return news

    def finish(self) -> Sequence[Notice]:
        """At the end of the trace: calls that are still open and not yet announced, oldest first."""
        left = [each for calls in self._open.values() for each in calls if not each.is_announced]
        for each in left:
            each.is_announced = True
        left.sort(key=lambda open_call: open_call.call.sequence)
        return [Notice(NoticeKind.UNFINISHED, each.call) for each in left]

    def retract(self, cpu: int, space: int, user_rsp: int) -> Call | None:
        """Forget the call that `cpu` entered last, as its entry may not have told; None if it was another."""
        last = (self._on_cpu.get(cpu), *reversed(self._open.get(space, ())))
        meant = (each for each in last if each is not None and each.call.cpu in (cpu, None))
        opened = next(
            (each for each in meant if each.call.space == space and each.call.user_rsp == user_rsp), None
        )
        if opened is None or opened.is_announced:
            return None
        self._forget(opened)
        self.entries -= 1
        return opened.call

    @property
    def is_executing(self) -> bool:
        """Whether an exec is in progress: the next return may be in another address space."""
        return self._executing > 0

    def still_open(self) -> list[Call]:
        """Calls that have not returned, oldest first."""
        calls = [each.call for calls in self._open.values() for each in calls]
        return sorted(calls, key=lambda call: call.sequence)

    def _enter(self, entry: Entry, news: list[Notice]) -> None:
        if (entry.repeats or entry.interruptible) and self._is_entered_already(entry):
            return
        self.entries += 1
        if entry.space in self.lineage.ending and entry.process_id is None:
            self._bury(entry, news)
        beside = self._open.get(entry.space)
        if beside is not None:
            left = [each for each in beside if self._has_left(each, entry)]
            if left:
                self._leave_behind(left, entry.space, news)
        self._announce_other(entry.cpu, None, news)
        call = self.newest = self._begin(entry)
        thread = (entry.space, entry.fs_base)
        opened = OpenCall(call, thread, entry.preserved, entry.kernel_stack_top, self._fork_returns)
        self.repeats.note_entry(opened)
        if entry.number in self.exit_numbers:
            self._end_at_once(entry, call)
            news.append(Notice(NoticeKind.WHOLE, call))
            return
        self._open.setdefault(entry.space, []).append(opened)
        self._on_cpu[entry.cpu] = opened
        if entry.number in self.exec_numbers:
            self._executing += 1
        elif entry.number in self.fork_numbers:
            self.lineage.forks.add(opened)
            self.generation += 1

    def _begin(self, entry: Entry) -> Call:
        process = self.lineage.enter(entry)
        call = begin(entry, self.entries, process)
        call.parent = self.lineage.parents.get(process)
        return call

    def _end_at_once(self, entry: Entry, call: Call) -> None:
        """An exit: there will be no return."""
        call.state = CallState.NEVER_RETURNED
        if entry.number not in self.thread_exit_numbers:
            self.lineage.end(entry.space, Ending.WHOLE if self._ends_all(entry.space) else Ending.SEEN)
        self.generation += 1

    def _ends_all(self, space: int) -> bool:
        """Whether an exit there ends all threads: not where it is the kernel's only one, nor a vfork's child's."""
        calls = self._open.get(space, ())
        return bool(self.thread_exit_numbers) and not any(
            each.call.number in self.thread_numbers for each in calls
        )

    def _note_handler(self, event: InHandler) -> None:
        """The exec that this CPU has just entered is on this kernel stack."""
        opened = self._on_cpu.get(event.cpu)
        if opened is not None and opened.call.number in self.exec_numbers and opened.call.space == event.space:
            opened.handler_rsp = event.kernel_rsp

    def _is_entered_already(self, entry: Entry) -> bool:
        is_forking = any(each.call.number in self.fork_numbers for calls in self._open.values() for each in calls)
        fork_returns = None if is_forking else self._fork_returns
        return self.repeats.is_entered_already(entry, self._open.get(entry.space, ()), fork_returns)

    def _leave(self, event: Return, news: list[Notice]) -> None:
        if event.space in self.lineage.ending:
            self._bury(event, news)
        opened = self._find_open(event)
        if opened is None and self.repeats.has_returned_already(event):
            return
        self.returns += 1
        opened = opened or self._find_executed(event)
        self.repeats.note_return(event, self.entries)
        if opened is None:
            self._announce_other(event.cpu, None, news)
            news.append(Notice(NoticeKind.RESUMED, self._begin_unseen(event)))
            return
        self._forget(opened)
        self._end(opened, event, news)
        if not opened.call.is_ambiguous:
            self._learn_stack(opened.call, event, news)
        self._announce_other(event.cpu, opened, news)
        news.append(Notice(NoticeKind.RESUMED if opened.is_announced else NoticeKind.WHOLE, opened.call))

    def _end(self, opened: OpenCall, event: Return, news: list[Notice]) -> None:
        """The call has returned; it may have changed which process is where."""
        call = opened.call
        complete(call, event)
        call.parent = self.lineage.parents.get(call.process)
        if call.number in self.fork_numbers:
            self._fork_returns += 1
            self.generation += 1
            self.lineage.end_fork(opened)
        reaped = find_reaped(call) if call.number in self.wait_numbers else None
        if reaped is not None:
            self.generation += 1
            for space, process in self.lineage.reap(reaped):
                if process != call.process:  # as a process that shares its page table seems to be
                    self._abandon(self._calls_of(space, process), news)
        if event.space != call.space:
            self.lineage.execute(call.process, call.space, event.space)

    def _learn_stack(self, call: Call, event: Return, news: list[Notice]) -> None:
        """Whose kernel stack this is; what its thread had entered before it will not return to."""
        if event.kernel_stack is None or call.user_rsp is None:
            return
        self._stacks.learn(event.kernel_stack, event.space, call.user_rsp)
        beside = self._open.get(event.space)
        if beside is not None:
            self._abandon([each for each in beside if self._is_earlier(each, call, event)], news)

    def _bury(self, event: Entry | Return, news: list[Notice]) -> None:
        """After an exit, and with no call open, what is seen next in a space is another process.

        After one that ends all threads their open calls do not matter, but where `event` is the return of one.
        """
        process = self.lineage.find(event.space) if self.lineage.knows(event.space) else None
        calls = self._calls_of(event.space, process)
        is_whole = self.lineage.ending[event.space] is Ending.WHOLE
        if is_whole and not (isinstance(event, Return) and any(self._ends(each, event) for each in calls)):
            self._abandon(calls, news)
            calls = []
        if not calls and self.lineage.bury(event):
            self._stacks.forget_space(event.space)

    def _calls_of(self, space: int, process: int | None) -> list[OpenCall]:
        """Its open ones; an exec of another process may be open in that space, too."""
        return [each for each in self._open.get(space, ()) if each.call.process == process]

    def _has_left(self, opened: OpenCall, entry: Entry) -> bool:
        """Whether the thread of an open call is known to be the one that enters: that call did not return."""
        user_rsp = opened.call.user_rsp
        if opened.thread != (entry.space, entry.fs_base) or user_rsp is None:
            return False
        if user_rsp == entry.user_rsp:
            return True
        stack = self._stacks.find(entry.space, user_rsp)
        return stack is not None and stack == self._stacks.find(entry.space, entry.user_rsp)

    def _is_earlier(self, opened: OpenCall, call: Call, event: Return) -> bool:
        """Whether the thread that has just returned from `call` had entered the open one before that."""
        if opened.is_elsewhere(event):
            return False
        return opened.call.sequence < call.sequence and self._stack_of(opened) == call.kernel_stack

    def _leave_behind(self, left: list[OpenCall], space: int, news: list[Notice]) -> None:
        """Calls of the thread that enters; but an exec may have freed its page table, and be about to return."""
        executing = [each for each in left if each.call.number in self.exec_numbers]
        if executing:
            self.lineage.vacate(space)
        self._abandon([each for each in left if each not in executing], news)

    def _abandon(self, left: list[OpenCall], news: list[Notice]) -> None:
        for each in left:
            self._forget(each)
            each.call.state = CallState.NEVER_RETURNED
            kind = NoticeKind.RESUMED if each.is_announced else NoticeKind.WHOLE
            each.is_announced = True
            news.append(Notice(kind, each.call))

    def _stack_of(self, opened: OpenCall) -> int | None:
        """The kernel stack of the thread that is in the call, if it is known."""
        user_rsp = opened.call.user_rsp
        return None if user_rsp is None else self._stacks.find(opened.call.space, user_rsp)

    def _announce_other(self, cpu: int | None, subject: OpenCall | None, news: list[Notice]) -> None:
        """The CPU does something for `subject`: whatever it did before is unfinished."""
        before = self._on_cpu.pop(cpu, None)
        if before is None or before is subject or before.is_announced:
            return
        if before.call.state is CallState.IN_PROGRESS:
            before.is_announced = True
            news.append(Notice(NoticeKind.UNFINISHED, before.call))

    def _find_open(self, event: Return) -> OpenCall | None:
        in_space = self._open.get(event.space)
        if in_space is None:
            return None
        if len(in_space) == 1 and self._ends(in_space[0], event):
            return in_space[0]  # as nearly always
        calls = [each for each in in_space if self._may_end(each, event)]
        fitting = [each for each in calls if self._fits(each, event)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            return self._choose(fitting, event)
        if len(calls) == 1 and (event.user_rsp is not None or self._is_known(event)):
            return calls[0]  # a call that sets FS base or restores other registers
        kept = [each for each in calls if self.registers_kept and self._keeps(each, event)]
        return self._guess(kept[-1]) if kept else None

    def _choose(self, fitting: list[OpenCall], event: Return) -> OpenCall:
        """Of several that fit, the one of the kernel stack's thread, else of a thread not known to be another."""
        stacks = [self._stack_of(each) for each in fitting]
        if event.kernel_stack is not None and event.kernel_stack in stacks:
            fitting = [each for each, stack in zip(fitting, stacks, strict=True) if stack == event.kernel_stack]
        elif event.kernel_stack is not None and None in stacks:
            fitting = [each for each, stack in zip(fitting, stacks, strict=True) if stack is None]
        return fitting[0] if len(fitting) == 1 else self._guess(fitting[-1])

    def _guess(self, opened: OpenCall) -> OpenCall:
        self.ambiguous += 1
        opened.call.is_ambiguous = True
        return opened

    def _may_end(self, opened: OpenCall, event: Return) -> bool:
        """Whether nothing certain speaks against it: a fork's 0 is the child's, and a stack carries one call."""
        if opened.is_elsewhere(event):
            return False
        if event.result == 0 and opened.call.number in self.fork_numbers:
            return False
        if event.user_rsp is not None:
            return event.user_rsp == opened.call.user_rsp
        if event.kernel_stack is None:
            return True
        return opened.call.sequence > self.repeats.count_entries_before(event.kernel_stack)

    def _is_known(self, event: Return) -> bool:
        """Whether the thread on this kernel stack has been seen: then its entry was seen, too."""
        return event.kernel_stack is not None and self._stacks.space(event.kernel_stack) == event.space

    def _ends(self, opened: OpenCall, event: Return) -> bool:
        return self._may_end(opened, event) and self._fits(opened, event)

    def _fits(self, opened: OpenCall, event: Return) -> bool:
        return opened.thread[1] == event.fs_base and self._keeps(opened, event)

    def _keeps(self, opened: OpenCall, event: Return) -> bool:
        return not self.registers_kept or opened.preserved == event.preserved

    def _find_executed(self, event: Return) -> OpenCall | None:
        """exec: the return is on the kernel stack of a thread whose call is open in another address space.

        An engine that has looked knows that stack (`kernel_stack_top`); else earlier returns have taught it. Where
        that stack has not been seen yet, an open exec with the same registers is looked for.
        """
        calls = [each for opened in self._open.values() for each in opened if each.call.space != event.space]
        if event.kernel_stack_top is not None:
            return next((each for each in calls if each.kernel_stack_top == event.kernel_stack_top), None)
        if event.kernel_stack is not None:
            on_stack = [each for each in calls if each.is_on(event.kernel_stack)]
            if on_stack:
                return max(on_stack, key=lambda each: each.call.sequence)
            calls = [each for each in calls if each.handler_rsp is None]
            space = self._stacks.space(event.kernel_stack)
            of_thread = [each for each in calls if each.call.space == space and self._may_execute(each, event)]
            if len(of_thread) == 1:
                return of_thread[0]
        if self.lineage.knows(event.space):
            return None
        fitting = [each for each in calls if each.call.number in self.exec_numbers and self._keeps(each, event)]
        if len(fitting) == 1:
            return fitting[0]
        last = self._on_cpu.get(event.cpu)
        return self._guess(last) if last in fitting and last is not None else None

    def _may_execute(self, opened: OpenCall, event: Return) -> bool:
        call = opened.call
        if event.kernel_stack is None or (self.exec_numbers and call.number not in self.exec_numbers):
            return False
        return self._may_end(opened, event)

    def _begin_unseen(self, event: Return) -> Call:
        """A return without an entry: a fork's child on its first way out, or a call from before the trace."""
        fork = self.lineage.begin(event, self._keeps)
        process = self.lineage.find(event.space)
        if fork is None:
            call = Call(sequence=0, cpu=event.cpu, space=event.space, process=process)
            complete(call, event)
            call.state = CallState.ENTERED_BEFORE
            return call
        parent = fork.call
        call = Call(0, event.cpu, event.space, process, parent.number)
        call.parent = self.lineage.parents[process]
        call.user_rip, call.user_rsp = parent.user_rip, parent.user_rsp
        complete(call, event)
        call.state = CallState.STARTED_BY_FORK
        if event.kernel_stack is not None and call.user_rsp is not None:
            self._stacks.learn(event.kernel_stack, event.space, call.user_rsp)
        return call

    def _forget(self, opened: OpenCall) -> None:
        calls = self._open[opened.call.space]
        calls.remove(opened)
        self._executing -= opened.call.number in self.exec_numbers
        if not calls:
            del self._open[opened.call.space]
        if self._on_cpu.get(opened.call.cpu) is opened:
            del self._on_cpu[opened.call.cpu]
