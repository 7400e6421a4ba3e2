"""A GDB stub that is not QEMU's: QEMU's, behind a relay that knows no word of QEMU's own."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["relay_without_monitor"]

_PACKET = re.compile(rb"\$([^#]*)#..", re.DOTALL)
_OF_QEMU = (b"qRcmd", b"qqemu", b"Qqemu")


@contextmanager
def relay_without_monitor(stub: Path | str, directory: Path) -> Iterator[Path]:
    """The socket of a relay to `stub`, for one GDB. It knows no packet of QEMU's own, nor monitor commands."""
    path = directory / "other.sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as qemu:
        server.bind(str(path))
        server.listen(1)
        qemu.connect(str(stub))
        thread = threading.Thread(target=_serve, args=(server, qemu), daemon=True)
        thread.start()
        yield path
        with suppress(OSError):
            qemu.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _serve(server: socket.socket, qemu: socket.socket) -> None:
    gdb, _ = server.accept()
    with gdb:
        back = threading.Thread(target=_pass_back, args=(qemu, gdb), daemon=True)
        back.start()
        waiting = b""
        with suppress(OSError):  # QEMU is shut down first where the test ends before GDB does
            while data := gdb.recv(4096):
                waiting = _pass_on(waiting + data, gdb, qemu)
        back.join(10)


def _pass_back(qemu: socket.socket, gdb: socket.socket) -> None:
    # Either may close first.
    with suppress(OSError):
        while data := qemu.recv(4096):
            gdb.sendall(data)
        gdb.shutdown(socket.SHUT_RDWR)


def _pass_on(data: bytes, gdb: socket.socket, qemu: socket.socket) -> bytes:
    """Relay what is complete: acknowledgements, interrupts, packets. The rest comes with the next piece."""
    while data:
        packet = _PACKET.match(data)
        if packet is None and data.startswith(b"$"):
            return data
        piece = data[:1] if packet is None else packet[0]
        if packet is not None and packet[1].startswith(_OF_QEMU):
            gdb.sendall(b"+$#00")
        else:
            qemu.sendall(piece)
        data = data[len(piece) :]
    return data
