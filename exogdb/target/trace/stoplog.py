"""The engine for any QEMU: the guest stops at every entry and every return, and goes on.

A stop and a resume of QEMU cost about 0.35 ms whatever is done in between; GDB's own work and the step over a
breakpoint come on top. Both are saved here. The stub is talked to directly (`exogdb.target.trace.stub_run`), and
where the breakpoint is on a `swapgs`, as the first instruction of a stub is, it is carried out by exchanging
the two bases instead of being stepped over. The guest is then in the very state in which the instruction
would have left it. Other instructions are stepped over.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from exogdb.abi.stub.entry_path import EntryPath
from exogdb.abi.stub.stub_state import read_held
from exogdb.errors import MemoryFault, MonitorError, UnavailableError
from exogdb.target.current_process import ProcessId
from exogdb.target.qemu.guest_clock import GuestClock
from exogdb.target.trace.stub_run import StubRegisters, StubRun, open_stub_run
from exogdb.trace.event import Entry, Return, address_space
from exogdb.trace.points import TracePoints
from exogdb.trace.sink import Sink

__all__ = ["CLOCK", "NAME", "KernelFacts", "trace_by_stops"]

NAME = "stops at entry and return"
CLOCK = (
    "time that the guest ran, seen from the host; "
    "QEMU's starting again after each stop is in it, and is most of a short one"
)

_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
_MOST_STEPS = 5  # QEMU 7.2 sometimes reports a step that did not happen
_SWAPGS = b"\x0f\x01\xf8"


@dataclass(frozen=True)
class KernelFacts:
    """What is known of the kernel: where calls are seen, its stub, and where it keeps a process's number."""

    points: TracePoints
    path: EntryPath
    process_id: ProcessId | None


def trace_by_stops(kernel: KernelFacts, clock: GuestClock | None, sink: Sink, seconds: float | None) -> str:
    """Run the guest with stops at both points until Ctrl-C, `seconds`, a full sink, or a breakpoint of the user's.

    The guest must be stopped, and is stopped afterwards. Without `clock` times are `CLOCK`'s. Answers why the run
    ended.

    :raise TargetLostError: QEMU ended; what was seen before is in `sink`.
    """
    with open_stub_run(seconds) as run:
        engine = _Engine(run, kernel, clock, sink)
        try:
            return engine.run()
        finally:
            engine.release()


class _Engine:
    def __init__(self, run: StubRun, kernel: KernelFacts, clock: GuestClock | None, sink: Sink) -> None:
        points = kernel.points
        self._run = run
        self._points = points
        self._path = kernel.path
        self._process_id = kernel.process_id
        self._clock = clock
        self._generation = -1
        self._identified: set[int] = set()
        self._held: dict[int, Entry] = {}
        self._sink = sink
        self._kept = sorted(points.kept)
        exits = points.exits or points.returns
        self._is_exit_in_user_state = bool(points.exits)
        self._places = {points.entry, *points.links, *exits}
        # An instruction that is carried out here takes no time, so that the guest's clock would show one too few.
        self._swapgs = {address for address in self._places if clock is None and _is_swapgs(run, address)}

    def run(self) -> str:
        """Go from stop to stop."""
        start = self._run.registers()["rip"]
        for address in self._places:
            self._run.insert(address)
        self._sink.cpu = self._run
        while not (ending := self._run.reason_to_end):
            if not self._run.resume():
                continue  # woken to look at the clock, or at Ctrl-C
            registers = self._run.registers()
            if registers["rip"] == start and start not in self._places:
                self._run.step()  # a breakpoint of the user's, on which the guest already stood
                start = 0
                continue
            if registers["rip"] not in self._places:
                return f"stopped at {registers['rip']:#x} on CPU {self._run.cpu}"
            for event in self._to_events(registers):
                self._sink.feed(event)
            self._sink.flush()
            self._pass_by(registers)
            if self._sink.is_full:
                return "as asked for"
        return ending

    def release(self) -> None:
        """At the end: entries whose CPU did not get as far as the kernel's page tables."""
        self._sink.cpu = None
        for entry in self._held.values():
            self._sink.feed(entry)

    def _to_events(self, registers: StubRegisters) -> Iterator[Entry | Return]:
        """An entry waits until its CPU shows the kernel's page tables, if the stub changes them."""
        held = self._held.pop(self._run.cpu, None)
        if held is not None:
            if registers["rip"] in self._points.links:
                held.space = address_space(registers["cr3"])
                held.process_id = self._read_process_id(held.space, registers["gs_base"])
            yield held
        if registers["rip"] in self._points.links:
            return
        event = self._to_event(registers)
        if self._points.links and isinstance(event, Entry):
            self._held[self._run.cpu] = event
        else:
            yield event

    def _to_event(self, registers: StubRegisters) -> Entry | Return:
        cpu, now = self._run.cpu, self._read_clock()
        space, fs_base = address_space(registers["cr3"]), registers["fs_base"]
        preserved = tuple(registers[name] for name in self._kept)
        if registers["rip"] != self._points.entry:
            in_user_state = self._is_exit_in_user_state
            stack = None if in_user_state else registers["rsp"]
            user_rsp = registers["rsp"] if in_user_state else None
            result, top = self._read_result(registers), None
            if self._sink.pairing.is_executing:
                top = self._read_stack_top(registers["gs_base"])
            return Return(cpu, space, fs_base, preserved, result, stack, user_rsp, now, top)
        one, two, three, four, five, six = (registers[name] for name in _ARGUMENTS)
        arguments = (one, two, three, four, five, six)
        where = (registers["rcx"], registers["rsp"])
        is_exec = registers["rax"] in self._sink.pairing.exec_numbers
        top = self._read_stack_top(registers["k_gs_base"]) if is_exec else None
        entry = Entry(cpu, space, fs_base, preserved, registers["rax"], arguments, *where, now, top)
        if not self._points.links:
            entry.process_id = self._read_process_id(space, registers["k_gs_base"])
        return entry

    def _read_clock(self) -> int | None:
        """None where QEMU does not tell, as when it is gone, or at Ctrl-C: both end the run next."""
        if self._clock is None:
            return self._run.ran_ns
        try:
            return self._clock.read()
        except (MonitorError, UnavailableError, KeyboardInterrupt):
            return None

    def _read_process_id(self, space: int, kernel_gs_base: int) -> int | None:
        """The kernel's number of the process in `space`, if it may be another than when it was read last."""
        generation = self._sink.pairing.generation
        if generation != self._generation:
            self._generation = generation
            self._identified.clear()
        if self._process_id is None or space in self._identified:
            return None
        self._identified.add(space)
        try:
            return self._process_id.read(self._run, kernel_gs_base)
        except MemoryFault:
            return None

    def _read_stack_top(self, kernel_gs_base: int) -> int | None:
        """Where the kernel stack of the thread on this CPU begins, from the slot that the stub takes it from."""
        stack = self._path.stack
        if stack is None or stack.gs_slot is None or not stack.is_kept:
            return None
        try:
            return int.from_bytes(self._run.read(kernel_gs_base + stack.gs_slot, 8), "little")
        except MemoryFault:
            return None

    def _read_result(self, registers: StubRegisters) -> int | None:
        """What the user will find in rax, wherever the stub keeps it now."""
        state = self._path.state_at(registers["rip"])
        if state is None or self._points.result_in_rax:
            return registers["rax"]
        try:
            return read_held(state.registers["rax"], registers, registers["gs_base"], self._run)
        except UnavailableError:
            return None

    def _pass_by(self, registers: StubRegisters) -> None:
        """Get the CPU over the instruction under its breakpoint."""
        if registers["rip"] in self._swapgs:
            self._run.write("gs_base", registers["k_gs_base"])
            self._run.write("k_gs_base", registers["gs_base"])
            self._run.write("rip", registers["rip"] + len(_SWAPGS))
            return
        for _ in range(_MOST_STEPS):
            self._run.step()
            if self._run.registers()["rip"] != registers["rip"]:
                return


def _is_swapgs(run: StubRun, address: int) -> bool:
    try:
        return run.read(address, len(_SWAPGS)) == _SWAPGS
    except MemoryFault:
        return False
