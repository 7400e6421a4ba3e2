"""Running a piece of the kernel's code in a CPU emulator, on copies of its memory.

Nothing here touches the guest but to read it: every page is copied when the emulated code first needs it, writes
go to the copy, and each run starts from the pristine copies again. A run follows one system-call number from
the dispatcher's first instruction and records the basic blocks it passes and the memory it reads.
"""

from collections.abc import Set
from importlib import import_module
from struct import unpack_from
from typing import Any

from exogdb.abi.dispatch.copied_pages import MASK_52, PAGE, CopiedPages, canonical
from exogdb.abi.dispatch.repeat import Repeat
from exogdb.abi.dispatch.stack_depth import moves_stack_unknown
from exogdb.abi.dispatch.trace import (
    ARGUMENT_VALUES,
    ENTRY_RSP,
    FRAME,
    GENERAL_REGISTERS,
    RETURN,
    STACK,
    STACK_SIZE,
    Block,
    Call,
    DispatcherEntry,
    Ending,
    Snapshot,
    TableRead,
    Trace,
    find_emulated,
)
from exogdb.abi.stub.location import InFrame, InRegister, Location, OnStack
from exogdb.interrupts import interrupts_held
from exogdb.x86.memory import ReadableMemory
from exogdb.x86.word import MASK_64

__all__ = ["Emulator"]

_MAX_BLOCKS = 3000
_MAX_BLOCKS_AFTER = 400  # behind a call that is made up to return at once
_RESULTS = (0, MASK_64)  # of such a call: one that succeeds and one that fails
_Begin = tuple[Any, bytes]  # the emulator's registers, and what is on the stack


class _Everything(frozenset[int]):
    """Contains every address but those it was made from."""

    def __contains__(self, address: object) -> bool:
        return not super().__contains__(address)


class Emulator:
    """An x86-64 CPU on copies of `memory`, ready to run a dispatcher again and again.

    `gs_base` is the per-CPU block's address, for code that uses it.
    """

    def __init__(self, memory: ReadableMemory, entry: DispatcherEntry, gs_base: int = 0) -> None:
        unicorn: Any = import_module("unicorn")
        self._entry = entry
        self._moves: dict[Block, bool] = {}
        self._error: type[Exception] = unicorn.UcError
        self._uc: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._pages = CopiedPages(self._uc, memory)
        self._ids = {
            name: getattr(unicorn.x86_const, f"UC_X86_REG_{name.upper()}")
            for name in (*GENERAL_REGISTERS, "rsp", "rip")
        }
        self._gs_id = unicorn.x86_const.UC_X86_REG_GS_BASE
        self._flags_id = unicorn.x86_const.UC_X86_REG_RFLAGS
        self._fetch: int = unicorn.UC_MEM_FETCH_UNMAPPED
        self._uc.mem_map(STACK, STACK_SIZE)
        self._uc.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, self._on_unmapped)
        self._uc.hook_add(unicorn.UC_HOOK_BLOCK, self._on_block)
        for begin, end in ((0, STACK - 1), (STACK + STACK_SIZE, MASK_64)):  # what is on the stack is no table
            self._uc.hook_add(unicorn.UC_HOOK_MEM_READ, self._on_read, begin=begin, end=end)
        self._uc.hook_add(unicorn.UC_HOOK_MEM_WRITE, self._on_write)
        self._trace = Trace(0)
        self._follow: Set[int] = frozenset()
        self._skip: Set[int] = frozenset()
        self._open_calls: list[tuple[int, int]] = []  # (target, rsp at the target's first instruction)
        self._last_push = (0, 0)  # address and value of the last write to the stack: a call writes last
        self._until = RETURN
        self._most_blocks = _MAX_BLOCKS
        self._repeats: dict[
            tuple[frozenset[int], int], Repeat
        ] = {}  # by the calls that are followed, and the result
        self._repeat: Repeat | None = None
        self._resume: tuple[int, int] | None = None
        self._begin = self._make_begin(gs_base)

    def run(self, number: int, follow: Set[int], skip: Set[int], until: int = RETURN) -> Trace:
        """Follow `number` until the dispatcher returns, reaches `until`, or calls anything not in the sets.

        A call whose target is in `follow` is executed; one in `skip` returns 0 at once.
        """
        copied = -1
        while copied < len(self._pages):
            copied = len(self._pages)
            trace = self._run_once(number, follow, skip, until)
            if trace.ending is not Ending.FAULT:
                break  # Unicorn 2.1 may report a fault where a page was copied in the middle of a block
        return trace

    def _run_once(self, number: int, follow: Set[int], skip: Set[int], until: int) -> Trace:
        self._reset(number)
        self._trace = trace = Trace(number)
        self._most_blocks = _MAX_BLOCKS
        self._follow, self._skip, self._until, self._open_calls = follow, skip, until, []
        self._go(self._entry.address)
        if trace.ending is Ending.REACHED and self._read("rip") != until:
            self._step_to(until)
        return trace

    def run_on(self, trace: Trace) -> None:
        """Add to `trace.after`, right behind the run that made it, what runs after its call.

        That is for a call that succeeds and one that fails, both with the memory as it was at the call.
        """
        call = trace.call
        if call is None:
            return
        before, written = self._take_begin(), self._pages.take_written()
        self._most_blocks, self._skip = _MAX_BLOCKS_AFTER, _Everything(self._follow)
        followed = frozenset(self._follow)
        for result in _RESULTS:
            repeat = self._repeats.setdefault((followed, result), Repeat())
            copied = -1
            while copied < len(self._pages):  # see `run`
                copied = len(self._pages)
                self._pages.restore(written)
                self._go_back_to(before)
                self._uc.reg_write(self._ids["rsp"], self._read("rsp") + 8)
                self._uc.reg_write(self._ids["rax"], result)
                self._trace, self._open_calls = Trace(trace.number), []
                self._repeat = repeat
                repeat.begin()
                self._go(call.returns_to)
                if self._trace.ending is not Ending.FAULT:
                    break
            repeat.complete(self._trace)
            trace.after += self._trace.blocks
            trace.passed |= self._trace.passed
            trace.lowered |= self._trace.lowered
        self._repeat = None

    def _go(self, begin: int) -> None:
        """Run from `begin`, returning at once from calls that are passed over, until the trace ends."""
        at: int | None = begin
        while at is not None:
            self._resume = None
            try:
                self._emulate(at, RETURN)
            except self._error:
                self._trace.ending = Ending.FAULT
                self._blame()
                return
            at = self._take_resume()

    def _emulate(self, begin: int, until: int, count: int = 0) -> None:
        """Run the emulator, no more than `count` instructions if that is not 0.

        Ctrl-C waits: in what it calls back through C a KeyboardInterrupt would be lost.
        """
        with interrupts_held():
            self._uc.emu_start(begin, until, count=count)

    def snapshot(self, number: int, address: int, follow: Set[int], skip: Set[int]) -> Snapshot | None:
        """The CPU when `number` first reaches `address`, calls followed where needed; None if it never does."""
        if self.run(number, follow, skip, until=address).ending is not Ending.REACHED:
            return None
        return self._take_snapshot()

    def behind(
        self, number: int, read: TableRead, follow: Set[int], skip: Set[int]
    ) -> tuple[int, Snapshot] | None:
        """The CPU right behind the instruction of `number`'s run that made `read`, and that address."""
        trace = self.run(number, follow, skip)
        position = next((position for position, each in trace.reads if each == read), None)
        if position is None:
            return None
        block = trace.blocks[position]
        if self.run(number, follow, skip, until=block.start).ending is not Ending.REACHED:
            return None
        if not self._step_past(read, block):
            return None
        return self._read("rip"), self._take_snapshot()

    def _step_past(self, read: TableRead, block: Block) -> bool:
        """Step from the first instruction of `block` past the one that makes `read`; whether it was there."""
        self._uc.ctl_flush_tb()  # what is translated already runs without counting
        try:
            while block.start <= (at := self._read("rip")) < block.end:
                self._emulate(at, RETURN, count=1)
                if any(each == read for _position, each in self._trace.reads):
                    return True
        except self._error:
            return False
        finally:
            self._uc.ctl_flush_tb()
        return False

    def _take_snapshot(self) -> Snapshot:
        names = (*GENERAL_REGISTERS, "rsp")
        values = self._uc.reg_read_batch([self._ids[name] for name in names])
        registers = dict(zip(names, values, strict=True))
        size = max(ENTRY_RSP + 0x48 - registers["rsp"], 0)
        raw = bytes(self._uc.mem_read(registers["rsp"], size)) if size <= 0x8000 else b""
        words = unpack_from(f"<{len(raw) // 8}Q", raw)
        return Snapshot(registers, words, self._is_depth_known(self._read("rip")), self._read_saved())

    def _read_saved(self) -> int | None:
        place = find_emulated(self._entry.saved)
        return None if place is None else int.from_bytes(self._uc.mem_read(place, 8), "little")

    def _is_depth_known(self, address: int) -> bool:
        """Whether the run that has got to `address` moved rsp by nothing but what the code tells."""
        *passed, last = self._trace.blocks
        if last.start <= address < last.end:
            last = Block(last.start, address)
        return not any(map(self._moves_stack_unknown, (*passed, last)))

    def _moves_stack_unknown(self, block: Block) -> bool:
        if block not in self._moves:
            self._moves[block] = block.end > block.start and moves_stack_unknown(self, block.start, block.end)
        return self._moves[block]

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes of the guest's code, each page copied once: a `ReadableMemory`.

        :raise MemoryFault: they cannot be read.
        """
        return self._pages.read_code(address, size)

    def _step_to(self, until: int) -> None:
        """From the start of the last block to `until` inside it."""
        block = self._trace.blocks[-1]
        # The emulator looks for `until` only when it translates, and this block is translated already.
        self._uc.ctl_remove_cache(block.start, block.end)
        try:
            self._emulate(block.start, until)
        except self._error:
            self._trace.ending = Ending.FAULT
            return
        finally:
            self._uc.ctl_remove_cache(block.start, block.end)
        if self._read("rip") != until:
            self._trace.ending = Ending.FAULT

    def _reset(self, number: int) -> None:
        self._pages.restore({})
        self._go_back_to(self._begin)
        if self._entry.saved is not None:
            self._put(self._entry.saved, number)
        self._put(self._entry.number, number)

    def _make_begin(self, gs_base: int) -> _Begin:
        """Every register and the stack as they are at the dispatcher's first instruction, but for the number."""
        self._uc.mem_write(STACK, bytes(STACK_SIZE))
        # Noise that is neither a number nor an argument, so that no register matches by chance.
        for index, name in enumerate(GENERAL_REGISTERS):
            self._uc.reg_write(self._ids[name], 0x6EAF_0000_0000_0000 | index << 32 | 0x5A5A)
        self._uc.reg_write(self._ids["rsp"], ENTRY_RSP)
        self._uc.reg_write(self._gs_id, gs_base)
        self._uc.reg_write(self._flags_id, 0x2)
        self._put(OnStack(0), RETURN)
        for location, value in zip(self._entry.arguments, ARGUMENT_VALUES, strict=False):
            self._put(location, value)
        return self._take_begin()

    def _take_begin(self) -> _Begin:
        return self._uc.context_save(), bytes(self._uc.mem_read(STACK, STACK_SIZE))

    def _go_back_to(self, begin: _Begin) -> None:
        context, stack = begin
        self._uc.context_restore(context)
        self._uc.mem_write(STACK, stack)

    def _put(self, location: Location, value: int) -> None:
        place = find_emulated(location)
        if place is not None:
            self._uc.mem_write(place, value.to_bytes(8, "little"))
        if isinstance(location, InRegister):
            self._uc.reg_write(self._ids[location.name], value)
        elif isinstance(location, InFrame):
            self._uc.reg_write(self._ids[location.pointer], FRAME)

    def _read(self, register: str) -> int:
        value: int = self._uc.reg_read(self._ids[register])
        return value

    def _take_resume(self) -> int | None:
        if self._resume is None:
            return None
        address, rsp = self._resume
        self._uc.reg_write(self._ids["rsp"], rsp)
        self._uc.reg_write(self._ids["rax"], 0)
        return address

    def _close_calls(self, rsp: int) -> None:
        """Forget the calls that have returned: their frames are below `rsp`."""
        while self._open_calls and rsp > self._open_calls[-1][1]:
            self._open_calls.pop()

    def _blame(self) -> None:
        self._close_calls(self._read("rsp"))
        if self._open_calls:
            self._trace.stuck_in = self._open_calls[0][0]

    def _stop(self, ending: Ending) -> None:
        self._trace.ending = ending
        self._uc.emu_stop()

    def _on_block(self, _uc: object, address: int, size: int, _data: object) -> None:
        if self._trace.ending in (Ending.REACHED, Ending.ALIKE):
            return
        blocks = self._trace.blocks
        if len(blocks) >= self._most_blocks:
            self._blame()
            self._stop(Ending.BUDGET)
            return
        if blocks and address != blocks[-1].end and self._is_refused_call(address, blocks[-1].end):
            return
        block = Block(address, address + size)
        blocks.append(block)
        if self._repeat is not None and self._repeat.is_certain(block):
            self._stop(Ending.ALIKE)
        if address <= self._until < address + size:
            self._stop(Ending.REACHED)

    def _is_refused_call(self, address: int, returns_to: int) -> bool:
        """Whether the jump to `address` was a call that this run must not enter; stops the run if so."""
        rsp, word = self._last_push
        if word != returns_to:
            return False  # asking the emulator for its stack pointer takes longer than all the rest
        self._close_calls(rsp)
        if address in self._skip:
            self._trace.passed.add(address)
            self._resume = (returns_to, rsp + 8)
            self._uc.emu_stop()
            return True
        if address in self._follow:
            self._close_calls(rsp + 1)  # a call from within has its frame below; one at the same place is over
            self._open_calls.append((address, rsp))
            return False
        self._trace.call = Call(address, returns_to)
        self._stop(Ending.CALL)
        return True

    def _on_read(self, _uc: object, _access: int, address: int, size: int, _value: int, _data: object) -> None:
        self._trace.reads.append((len(self._trace.blocks) - 1, TableRead(canonical(address), size)))

    def _on_write(self, _uc: object, _access: int, address: int, size: int, value: int, _data: object) -> None:
        if STACK <= address < STACK + STACK_SIZE:
            self._last_push = address, value & MASK_64
            return
        if size == 8 and address % 8 == 0:
            old = self._pages.word_before_write(address)
            if old is not None and value & MASK_64 == old + 1:
                self._trace.counters.add(canonical(address & MASK_52))
            elif old is not None and value & MASK_64 == old - 1:
                self._trace.lowered.add(canonical(address & MASK_52))
        self._pages.note_write(address, size)

    def _on_unmapped(self, _uc: object, access: int, address: int, size: int, _value: int, _data: object) -> bool:
        first, last = address & MASK_52 & -PAGE, (address & MASK_52) + max(size, 1) - 1
        is_data = access != self._fetch
        return all(self._pages.copy(page, is_data) for page in range(first, last + 1, PAGE))
