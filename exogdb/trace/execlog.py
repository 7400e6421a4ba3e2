"""QEMU's execution log (`log cpu` with `-dfilter`), decoded into entries and returns.

QEMU writes one register dump each time a translation block whose address the filter accepts is about to run. A
dump is written under one lock, so dumps never interleave; with `exec` there is also a line `Trace N: ...`, written
under a lock of its own, which can be separated from its dump by those of other CPUs. Hence nothing is taken from
that line unless it must be: RIP says which point it was, and the TR base which CPU, because every CPU has a task
state segment of its own::

    Trace 0: 0x7f2d58000100 [0000000000000000/ffffffff80100000/0040c0b0/ff000200] syscall_entry
    RAX=0000000000000065 RBX=0000000000001111 RCX=00000000400000ea RDX=0000000000000003
    RSI=... RDI=... RBP=... RSP=...
    R8 =... R9 =... R10=... R11=...
    R12=... R13=... R14=... R15=...
    RIP=ffffffff80100000 RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
    ES =0000 0000000000000000 ffffffff 00cf1300          (CS, SS, DS, FS, GS, LDT alike)
    TR =0030 ffffffff80205000 00000067 00008900 DPL=0 TSS64-avl
    GDT=     ffffffff80110000 0000003f
    CR0=80010033 CR2=0000000000000000 CR3=0000000000111000 CR4=00000620
    ...
    EFER=0000000000000501

Source: `x86_cpu_dump_state` in QEMU's target/i386/cpu-dump.c, `log_cpu_exec` in accel/tcg/cpu-exec.c; the same
text from QEMU 7.2 to 10.0.
"""

import re
from binascii import unhexlify
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from struct import Struct

from exogdb.trace.chaining import is_any_chained
from exogdb.trace.dump import Dump, DumpReader, Fields
from exogdb.trace.event import Entry, Event, InHandler, Return, address_space
from exogdb.trace.points import TracePoints
from exogdb.x86.memory import ReadableMemory

__all__ = ["LogDamage", "LogParser", "choose_log_items", "decode_task_registers"]

# Where `exogdb.trace.dump.Fields` has them.
_RAX, _RBX, _RCX, _RDX, _RSI, _RDI, _RBP, _RSP, _R8, _R9, _R10 = range(1, 12)
_R12_TO_R15, _RIP, _FLAGS, _CR3 = 13, 15, 16, 18
_entered_with = itemgetter(_RAX, _RDI, _RSI, _RDX, _R10, _R8, _R9, _RCX, _RSP)
_nine_words = Struct(">9Q").unpack
_INTERRUPTIBLE = frozenset(b"%x" % digit for digit in range(16) if digit & 2)  # RFLAGS bits 11:8, of which 9 is IF
_TRACE_LINE = re.compile(rb"Trace (\d+): \S+ \[[0-9a-f]+/([0-9a-f]+)/[^\n]*\n")
# Beside `Trace` lines: a block is left before its first instruction, and will be written down again.
_STARTED_OVER = "Stopped execution of TB chain before "
_LARGEST_DUMP = 8192
_MOST_SPACES = 4096
_TASK_REGISTER = re.compile(r"^CPU#(\d+)$(?:(?!^CPU#).)*?^TR =[0-9a-f]+ ([0-9a-f]+) ", re.MULTILINE | re.DOTALL)


@dataclass
class LogDamage:
    """What in the log was not as it should be. All zero for a log without loss.

    `foreign_lines`: text that is no dump (another log item is switched on); `unfiltered`: dumps at other addresses
    (the filter is not this one); `announced_only`: `Trace` lines whose dump never came; `cpu_unknown`: dumps whose
    CPU could not be told; `cut_bytes`: an incomplete dump at the end.
    """

    foreign_lines: int = 0
    unfiltered: int = 0
    announced_only: int = 0
    cpu_unknown: int = 0
    cut_bytes: int = 0
    first_foreign: str = ""

    @property
    def lost(self) -> int:
        """Records that the log must have held and that were not read."""
        return self.announced_only + (1 if self.cut_bytes else 0)


@dataclass
class LogParser:
    """Feed it the log in pieces of any size; it yields events in the log's order.

    Where the stub changes page tables an entry is held until the same CPU shows the kernel's, which it does with
    interrupts off: the return will show that one, too.

    `cpu_of_task` maps TR bases to CPU numbers (see `decode_task_registers`); a base that it lacks is learned from
    the `Trace` lines where these leave no doubt.
    """

    points: TracePoints
    cpu_of_task: dict[int, int] = field(default_factory=dict)
    damage: LogDamage = field(default_factory=LogDamage)
    _rest: bytes = b""
    _announced: dict[int, int] = field(default_factory=dict)
    _undecided: int = 0
    _task_cache: dict[bytes, int | None] = field(default_factory=dict)
    _last: dict[bytes, Fields] = field(default_factory=dict)
    _held: dict[bytes, Entry] = field(default_factory=dict)
    _spaces: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._dumps = DumpReader()
        self._preserved = _getter_of(self.points.kept)
        self._entry = b"%016x" % self.points.entry
        self._returns = frozenset(b"%016x" % address for address in self.points.returns)
        self._links = frozenset(b"%016x" % address for address in self.points.links)
        self._handlers = frozenset(b"%016x" % address for address in self.points.handlers)

    def feed(self, data: bytes, time_ns: int | None = None) -> list[Event]:
        """Decode what `data` completes. `time_ns` is the clock when `data` arrived, given to every event in it."""
        text = self._rest + data
        position = 0
        events: list[Event] = []
        while position < len(text):
            dump = self._dumps.read(text, position)
            if dump is None:
                found = self._dumps.find(text, position)
                if found is None:
                    break
                start, dump = found
                self._read_between(text[position:start])
            position = dump.end
            self._decode(dump, time_ns, events)
        self._rest = text[position:]
        if len(self._rest) > _LARGEST_DUMP:
            self._drop_unreadable()
        return events

    def take_held(self) -> list[Entry]:
        """At the end of the log: entries whose CPU did not get as far as the kernel's page tables."""
        held, self._held = list(self._held.values()), {}
        return held

    def finish(self) -> LogDamage:
        """Call at the end of the log: what was left over counts as damage."""
        start = self._rest.find(b"RAX=")
        self._read_between(self._rest if start < 0 else self._rest[:start])
        self.damage.cut_bytes = 0 if start < 0 else len(self._rest) - start
        self.damage.announced_only += max(0, len(self._announced) - self._undecided)
        self._rest = b""
        self._announced.clear()
        return self.damage

    def _decode(self, dump: Dump, time_ns: int | None, events: list[Event]) -> None:
        fields, (fs, task), _ = dump
        rip = fields[_RIP]
        repeats = self._last.get(task) == fields
        if repeats and (rip in self._links or task in self._held):
            # Between two entries of one CPU it would have changed page tables.
            self._find_cpu(task, rip)
            return
        self._last[task] = fields
        space = self._spaces.get(fields[_CR3]) or self._learn_space(fields[_CR3])
        if self._held:
            self._release(task, rip, space, events)
        if rip == self._entry:
            entry = self._to_entry(fields, space, int(fs, 16), self._find_cpu(task, rip), time_ns, repeats)
            if self._links:
                self._held[task] = entry
            else:
                events.append(entry)
        elif rip in self._returns:
            events.append(self._to_return(fields, space, int(fs, 16), self._find_cpu(task, rip), time_ns, repeats))
        elif rip in self._handlers:
            events.append(InHandler(self._find_cpu(task, rip), space, int(fields[_RSP], 16)))
        elif rip in self._links:
            self._find_cpu(task, rip)
        else:
            self.damage.unfiltered += 1

    def _release(self, task: bytes, rip: bytes, space: int, events: list[Event]) -> None:
        """The CPU shows the kernel's page tables, or has gone on without: its entry need not wait any more."""
        held = self._held.pop(task, None)
        if held is not None:
            if rip in self._links:
                held.space = space
            events.append(held)

    def _to_entry(
        self, fields: Fields, space: int, fs_base: int, cpu: int | None, time_ns: int | None, repeats: bool
    ) -> Entry:
        number, one, two, three, four, five, six, user_rip, user_rsp = _nine_words(
            unhexlify(b"".join(_entered_with(fields)))
        )
        arguments = (one, two, three, four, five, six)
        kept, interruptible = self._preserved(fields), fields[_FLAGS] in _INTERRUPTIBLE
        where = (user_rip, user_rsp)
        return Entry(cpu, space, fs_base, kept, number, arguments, *where, time_ns, None, repeats, interruptible)

    def _to_return(
        self, fields: Fields, space: int, fs_base: int, cpu: int | None, time_ns: int | None, repeats: bool
    ) -> Return:
        result = int(fields[_RAX], 16) if self.points.result_in_rax else None
        kept, interruptible = self._preserved(fields), fields[_FLAGS] in _INTERRUPTIBLE
        stack = int(fields[_RSP], 16)
        return Return(cpu, space, fs_base, kept, result, stack, None, time_ns, None, repeats, interruptible)

    def _learn_space(self, cr3: bytes) -> int:
        """The same few are in nearly every dump."""
        if len(self._spaces) > _MOST_SPACES:
            self._spaces.clear()
        space = self._spaces[cr3] = address_space(int(cr3, 16))
        return space

    def _find_cpu(self, task: bytes, rip: bytes) -> int | None:
        if self._announced:
            return self._match_announcement(int(task, 16), int(rip, 16))
        cpu = self._task_cache.get(task, -1)
        if cpu == -1:
            cpu = self._task_cache[task] = self.cpu_of_task.get(int(task, 16))
        if cpu is None:
            self.damage.cpu_unknown += 1
        return cpu

    def _match_announcement(self, task: int, rip: int) -> int | None:
        """Which of the CPUs that wrote a `Trace` line this dump belongs to; each can have one outstanding."""
        cpu = self.cpu_of_task.get(task)
        if cpu is None:
            known = set(self.cpu_of_task.values())
            fitting = [each for each, address in self._announced.items() if address == rip and each not in known]
            if len(fitting) == 1:
                cpu = self.cpu_of_task[task] = fitting[0]
                self._task_cache.clear()
        if cpu is None:
            self.damage.cpu_unknown += 1
            self._undecided += 1
        else:
            self._announced.pop(cpu, None)
        return cpu

    def _read_between(self, text: bytes) -> None:
        position = 0
        for line in _TRACE_LINE.finditer(text):
            if line.start() != position:
                self._note_foreign(text[position : line.start()])
            position = line.end()
            cpu = int(line[1])
            if cpu in self._announced and self._undecided:
                self._undecided -= 1
            elif cpu in self._announced:
                self.damage.announced_only += 1
            self._announced[cpu] = int(line[2], 16)
        if position != len(text):
            self._note_foreign(text[position:])

    def _note_foreign(self, text: bytes) -> None:
        text_lines = text.decode("ascii", "replace").splitlines()
        lines = [line for line in text_lines if line.strip() and not line.startswith(_STARTED_OVER)]
        self.damage.foreign_lines += len(lines)
        if lines and not self.damage.first_foreign:
            self.damage.first_foreign = lines[0][:200]

    def _drop_unreadable(self) -> None:
        """Too long for one dump, so it can never become one: count all but the last line as foreign."""
        end = self._rest.rfind(b"\n") + 1
        self._note_foreign(self._rest[:end])
        self._rest = self._rest[end:]


def _getter_of(kept: frozenset[str]) -> Callable[[Fields], object]:
    """What picks the callee-saved registers that the stub keeps; r12 to r15 only together."""
    places = [place for name, place in (("rbx", _RBX), ("rbp", _RBP)) if name in kept]
    places += [_R12_TO_R15] if kept >= {"r12", "r13", "r14", "r15"} else []
    return itemgetter(*places) if places else _nothing


def _nothing(_fields: Fields) -> object:
    return None


def choose_log_items(points: TracePoints, memory: ReadableMemory, *, tells_cpus: bool) -> str:
    """What QEMU is to log: the registers, and what slows the guest down only where it is needed.

    `exec` adds a line that names the CPU, at a tenth of the speed: unless TR `tells_cpus` apart. `nochain` makes
    everything slower that the guest does: where QEMU might pass a point by unseen. `memory` has the kernel's code.
    """
    items = ["cpu"] if tells_cpus else ["exec", "cpu"]
    if is_any_chained((points.entry, *points.returns, *points.links, *points.handlers), memory):
        items.append("nochain")
    return ",".join(items)


def decode_task_registers(text: str) -> Mapping[int, int]:
    """TR bases of all CPUs from the monitor's `info registers -a`, as a map from base to CPU number.

    A base that two CPUs share (none has loaded TR yet) tells nothing and is left out.

    >>> decode_task_registers("CPU#0\\nRAX=0\\nTR =0030 a000 0 0\\nCPU#1\\nTR =0030 b000 0 0\\n")
    {40960: 0, 45056: 1}
    """
    found = [(int(base, 16), int(cpu)) for cpu, base in _TASK_REGISTER.findall(text.replace("\r", ""))]
    bases = [base for base, _ in found]
    return {base: cpu for base, cpu in found if bases.count(base) == 1}
