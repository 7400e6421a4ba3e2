"""Where a kernel stack begins and where the saved frame lies on it.

::

    top ->  +--------------------+   what the per-CPU slot holds, rsp before the first push
            | saved frame        |   layout.size bytes
    base -> +--------------------+   top - layout.base_below_top
            | scratch            |   arguments and padding that the stub pushed for the call
    rsp ->  +--------------------+   at the call: top - dispatcher.rsp_below_top, aligned if the stub aligns
            | return address     |   into the stub: it is there for as long as the call lasts
            +--------------------+
"""

from exogdb.abi.stub.entry_path import NUMBER_REGISTER, EntryPath
from exogdb.abi.stub.location import InFrame, Location, OnStack
from exogdb.abi.stub.symbolic import Cell, Constant, Loaded, Sum, Value
from exogdb.errors import MemoryFault, UnavailableError
from exogdb.x86.memory import ReadableMemory
from exogdb.x86.word import MASK_64

__all__ = [
    "evaluate",
    "find_call_slot",
    "find_call_top",
    "find_frame_base",
    "find_link",
    "find_return_slot",
    "find_top_above",
    "find_saved_number",
    "holds_call",
    "is_on_stack",
    "read_saved_word",
    "read_stack_top",
]

_WORD = 8


def evaluate(value: Value, gs_base: int, memory: ReadableMemory) -> int:
    """What `value` is now, with the kernel's GS base at `gs_base`.

    :raise UnavailableError: it depends on something that was not kept, such as a user register.
    :raise exogdb.errors.MemoryFault: memory on the way cannot be read.
    """
    match value:
        case Constant(number):
            return number
        case Sum(base, offset):
            return evaluate(base, gs_base, memory) + offset & MASK_64
        case Loaded(Cell(space, base, offset)):
            start = evaluate(base, gs_base, memory) if base is not None else 0
            start += gs_base if space == "gs" else 0
            return int.from_bytes(memory.read(start + offset & MASK_64, _WORD), "little")
    raise UnavailableError(f"the stub computes it from {value}, which is not kept")


def read_stack_top(path: EntryPath, gs_base: int, memory: ReadableMemory) -> int:
    """The top of the kernel stack that a system call on this CPU starts with.

    During a call it may be elsewhere (`KernelStack.is_kept`): `find_call_top` finds it then, too.

    :raise UnavailableError: the analysis does not know where the stub gets it.
    """
    if path.stack is None:
        raise UnavailableError("the entry stub's kernel stack is not known")
    return evaluate(path.stack.top, gs_base, memory)


def find_call_top(path: EntryPath, rsp: int, gs_base: int, memory: ReadableMemory) -> int | None:
    """The top of the kernel stack that a call works on which has brought the CPU to `rsp`, outside the stub.

    Where the stub gave away what the slot held, by the return address above `rsp`; None if there is none.
    :raise UnavailableError: as for `read_stack_top`.
    """
    if path.stack is not None and not path.stack.is_kept:
        return find_top_above(path, rsp, memory)
    return read_stack_top(path, gs_base, memory)


def find_call_slot(path: EntryPath, rsp: int, gs_base: int, memory: ReadableMemory) -> int | None:
    """Where the call that has brought the CPU to `rsp` left its return address into the stub; None if nowhere.

    For a CPU that works on the call's own stack. Errors as for `find_call_top`.
    """
    top = find_call_top(path, rsp, gs_base, memory)
    slot = find_return_slot(path, top) if top is not None else None
    if top is None or slot is None or not rsp <= slot:
        return None
    return slot if holds_call(path, top, memory) else None


def find_frame_base(path: EntryPath, top: int) -> int:
    """The lowest address of the frame on the stack whose top is `top`."""
    return top - path.frame.base_below_top & MASK_64


def find_return_slot(path: EntryPath, top: int) -> int | None:
    """The address where the call of the dispatcher leaves its return address; None if not known."""
    if path.dispatcher is None or path.dispatcher.rsp_below_top is None:
        return None
    rsp = top - path.dispatcher.rsp_below_top
    if path.dispatcher.realigned:
        rsp &= -16
    return rsp - _WORD & MASK_64


def holds_call(path: EntryPath, top: int, memory: ReadableMemory) -> bool:
    """Whether the stack below `top` holds the return address into the stub where a call in progress has it."""
    slot = find_return_slot(path, top)
    if slot is None or path.dispatcher is None:
        return False
    try:
        return int.from_bytes(memory.read(slot, _WORD), "little") == path.dispatcher.return_address
    except MemoryFault:
        return False


def find_saved_number(path: EntryPath) -> Location | None:
    """Where the stub's own copy of the number is at the dispatcher's first instruction; None if it saves none.

    Behind the pointer to the frame if the dispatcher gets one, else on the stack.
    """
    dispatcher, slot = path.dispatcher, path.frame.find_slot(NUMBER_REGISTER)
    if dispatcher is None or dispatcher.rsp_below_top is None or slot is None:
        return None
    if dispatcher.realigned and (path.stack is None or not path.stack.is_kept):
        return None  # the stack's top alone tells where the frame is
    pointer = dispatcher.frame_pointer
    if pointer is not None and pointer.frame_offset is not None:
        return InFrame(pointer.register, slot.offset - pointer.frame_offset)
    offset = dispatcher.rsp_below_top + _WORD - path.frame.base_below_top + slot.offset
    return None if dispatcher.realigned else OnStack(offset)


def read_saved_word(path: EntryPath, slot: int, gs_base: int, memory: ReadableMemory) -> int | None:
    """The stub's copy of the number of the call that returns through the stack slot at `slot`.

    None if it was not this stub that called, so that nothing is known of the stack above.
    :raise UnavailableError: as for `read_stack_top`, or the frame cannot be read.
    """
    dispatcher, saved = path.dispatcher, path.frame.find_slot(NUMBER_REGISTER)
    if dispatcher is None or dispatcher.rsp_below_top is None or saved is None:
        return None
    top = slot + _WORD + dispatcher.rsp_below_top
    if dispatcher.realigned:
        top = read_stack_top(path, gs_base, memory)
    if find_return_slot(path, top) != slot:
        return None
    # Both in one piece: this is read at each hit of a breakpoint.
    data = memory.read(slot, find_frame_base(path, top) + saved.offset + _WORD - slot)
    is_ours = int.from_bytes(data[:_WORD], "little") == dispatcher.return_address
    return int.from_bytes(data[-_WORD:], "little") if is_ours else None


def is_on_stack(rsp: int, top: int, memory: ReadableMemory, limit: int = 0x8000) -> bool:
    """Whether `rsp` lies on the stack whose top is `top`: at most `limit` bytes below, with every page mapped."""
    if not 0 <= top - rsp <= limit:
        return False
    try:
        for page in range(rsp & -0x1000, top & -0x1000, 0x1000):
            memory.read(max(page, rsp & -_WORD), _WORD)
    except MemoryFault:
        return False
    return True


def find_link(rsp: int, top: int, slot: int, memory: ReadableMemory, limit: int = 0x4000) -> int | None:
    """The address above `rsp`, on whatever stack that is, of a pointer into the call's stack, whose top is `top`.

    Kernels that handle interrupts on a stack of their own keep the interrupted rsp at its far end. `slot` is where
    the call's return address is. Ends at the first word that cannot be read.
    """
    start = rsp & -_WORD
    for at in range(start, start + limit, _WORD):
        try:
            pointer = int.from_bytes(memory.read(at, _WORD), "little")
        except MemoryFault:
            return None
        if 0 <= slot - pointer < 0x8000 and pointer % _WORD == 0 and is_on_stack(pointer, top, memory):
            return at
    return None


def find_top_above(path: EntryPath, address: int, memory: ReadableMemory, limit: int = 0x8000) -> int | None:
    """The top of the kernel stack that `address` lies in, if a system call is in progress on it.

    Searches upwards for the return address into the stub, at most `limit` bytes and to the end of what is mapped.
    A stub that aligns rsp itself is taken to start with a top that is a multiple of 16.
    """
    if path.dispatcher is None or path.dispatcher.rsp_below_top is None:
        return None
    wanted = path.dispatcher.return_address.to_bytes(_WORD, "little")
    start = address & -_WORD
    for at in range(start, start + limit, _WORD):
        try:
            if memory.read(at, _WORD) == wanted:
                top = at + _WORD + path.dispatcher.rsp_below_top
                return top + 15 & -16 if path.dispatcher.realigned else top
        except MemoryFault:
            return None
    return None
