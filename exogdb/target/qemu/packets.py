"""GDB's remote protocol, several packets at a time: one write, and one wake-up of QEMU, for all of them.

QEMU carries packets out in their order and takes a packet that follows for the acknowledgement of the reply before
it (`gdb_read_byte`, gdbstub.c). An acknowledgement must not come alone: while the guest runs, QEMU takes any byte
for Ctrl-C. It is sent with what is sent next, the last one by `settle`.
"""

import os
import select

__all__ = ["PacketStream"]

_CHUNK_BYTES = 1 << 16
_INTERRUPT = b"\x03"


class PacketStream:
    """`descriptor` is a socket on which no reply is outstanding, and which nobody else reads meanwhile.

    Every method raises an `OSError` when the other end is gone.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._received = b""
        self._owed = b""
        self._input = select.poll()
        self._input.register(descriptor, select.POLLIN)
        self._output = select.poll()
        self._output.register(descriptor, select.POLLOUT)

    def send(self, *packets: str) -> None:
        """Send them all. Each is answered, in order; the last may be one that lets the guest run."""
        owed, self._owed = self._owed, b""
        self._write(owed + b"".join(map(_frame, packets)))

    def receive(self) -> bytes:
        """The next reply's content, waited for as long as it takes."""
        while (reply := self._take()) is None:
            self._input.poll()
            self._read()
        return reply

    def receive_within(self, timeout_ms: int) -> bytes | None:
        """The next reply's content, or None if nothing comes for `timeout_ms`."""
        while (reply := self._take()) is None:
            if not self._input.poll(timeout_ms):
                return None
            self._read()
        return reply

    def interrupt(self) -> None:
        """Stop a guest that runs: its stop reply is then received. Nothing happens if it stands."""
        self._write(_INTERRUPT)

    def settle(self) -> None:
        """Acknowledge the last reply. The guest must stand."""
        owed, self._owed = self._owed, b""
        self._write(owed)

    def _read(self) -> None:
        data = os.read(self._descriptor, _CHUNK_BYTES)
        if not data:
            raise ConnectionResetError("the GDB stub has closed the connection")
        self._received += data

    def _take(self) -> bytes | None:
        start = self._received.find(b"$")
        end = self._received.find(b"#", start)
        if start < 0 or end < 0 or len(self._received) < end + 3:
            return None
        reply = self._received[start + 1 : end]
        self._received = self._received[end + 3 :]
        self._owed = b"+"
        return reply

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # GDB has made it so, and QEMU is slow
                self._output.poll()


def _frame(packet: str) -> bytes:
    """With its checksum.

    >>> _frame("g")
    b'$g#67'
    """
    content = packet.encode("ascii")
    return b"$%b#%02x" % (content, sum(content) % 256)
