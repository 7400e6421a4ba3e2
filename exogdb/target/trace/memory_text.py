"""The bytes behind a call's pointers, read while its CPU is stopped at the entry or the return.

At both points the caller's address space is loaded, so the stub's own translation is the process's. What a
call reads is read at its entry, what it fills at its return.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import TypeVar

from exogdb.errors import MemoryFault
from exogdb.trace.call import Call
from exogdb.trace.signature import Kind, Parameter, Signature
from exogdb.trace.sink import StoppedCpu
from exogdb.x86.memory import ReadableMemory

__all__ = ["TextAtStops"]

_Kept = TypeVar("_Kept")

_LONGEST_TEXT = 64
_MOST_TEXTS = 17  # one more than are shown
_MOST_CALLS = 4096
_PAGE_SIZE = 4096


class TextAtStops:
    """An `exogdb.trace.sink.Observer` that reads what calls are given and what they fill."""

    def __init__(self, signatures: Mapping[int, Signature]) -> None:
        self._signatures = signatures
        self._texts: OrderedDict[int, dict[int, bytes]] = OrderedDict()
        self._arrays: OrderedDict[int, dict[int, list[bytes | int]]] = OrderedDict()

    def at_entry(self, call: Call, cpu: StoppedCpu) -> None:
        """Read the texts and buffers that the call is given. The caller's CPU is stopped."""
        for index, parameter, address, arguments in _pointers(call, self._signatures):
            if parameter.kind is Kind.TEXT:
                self._keep(call, index, _read_text(cpu, address))
            elif parameter.kind is Kind.TEXTS:
                length = None if parameter.length_index is None else arguments[parameter.length_index]
                _keep_in(self._arrays, call, index, _read_texts(cpu, address, length))
            elif parameter.length_index is not None and not parameter.is_output:
                self._keep(call, index, _read_bytes(cpu, address, arguments[parameter.length_index]))

    def at_return(self, call: Call, cpu: StoppedCpu) -> None:
        """Read the buffers that the call has filled, as many bytes as its result says."""
        if call.failed or call.result is None or call.return_space != call.space:
            return
        for index, parameter, address, arguments in _pointers(call, self._signatures):
            if parameter.is_output and parameter.length_index is not None:
                self._keep(
                    call, index, _read_bytes(cpu, address, min(call.result, arguments[parameter.length_index]))
                )

    def find_text(self, call: Call, index: int) -> bytes | None:
        """What argument `index` (from 0) of `call` points at, if it could be read."""
        return self._texts.get(call.sequence, {}).get(index)

    def find_texts(self, call: Call, index: int) -> list[bytes | int] | None:
        """The texts of the array that argument `index` (from 0) points at, if it could be read: 17 at most.

        An address stands for a text that could not be read.
        """
        return self._arrays.get(call.sequence, {}).get(index)

    def _keep(self, call: Call, index: int, text: bytes | None) -> None:
        _keep_in(self._texts, call, index, text)


def _keep_in(kept: OrderedDict[int, dict[int, _Kept]], call: Call, index: int, value: _Kept | None) -> None:
    if value is None:
        return
    kept.setdefault(call.sequence, {})[index] = value
    if len(kept) > _MOST_CALLS:
        kept.popitem(last=False)


def _pointers(
    call: Call, signatures: Mapping[int, Signature]
) -> list[tuple[int, Parameter, int, tuple[int, ...]]]:
    signature = signatures.get(call.number) if call.number is not None else None
    arguments = call.arguments
    if signature is None or arguments is None:
        return []
    pairs = enumerate(zip(signature.parameters, arguments, strict=False))
    wanted = (Kind.TEXT, Kind.TEXTS, Kind.BUFFER)
    return [(index, each, value, arguments) for index, (each, value) in pairs if each.kind in wanted]


def _read_bytes(memory: ReadableMemory, address: int, length: int) -> bytes | None:
    if not length:
        return b""
    try:
        return memory.read(address, min(length, _LONGEST_TEXT))
    except MemoryFault:
        return None


def _read_texts(memory: ReadableMemory, address: int, length: int | None) -> list[bytes | int] | None:
    """Of an array of `length` pointers, or up to a null pointer, the first 17."""
    texts: list[bytes | int] = []
    for index in range(_MOST_TEXTS if length is None else min(length, _MOST_TEXTS)):
        word = _read_bytes(memory, address + 8 * index, 8)
        if word is None:
            return None
        pointer = int.from_bytes(word, "little")
        if length is None and not pointer:
            break
        text = _read_text(memory, pointer)
        texts.append(pointer if text is None else text)
    return texts


def _read_text(memory: ReadableMemory, address: int) -> bytes | None:
    """Zero-terminated text of at most 64 bytes, never reading into a page that it does not reach."""
    text = b""
    while len(text) < _LONGEST_TEXT:
        at = address + len(text)
        piece = _read_bytes(memory, at, min(_PAGE_SIZE - at % _PAGE_SIZE, _LONGEST_TEXT - len(text)))
        if piece is None:
            return None
        head, end, _ = piece.partition(b"\0")
        text += head
        if end:
            return text
    return text
