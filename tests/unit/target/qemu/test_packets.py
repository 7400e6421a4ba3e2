"""exogdb/target/qemu/packets.py: packets sent together, and replies in pieces of any size."""

import os
import socket
from collections.abc import Iterator

import pytest

from exogdb.target.qemu.packets import PacketStream


@pytest.fixture
def ends() -> Iterator[tuple[PacketStream, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield PacketStream(ours.fileno()), theirs


def test_packets_are_sent_together(ends: tuple[PacketStream, socket.socket]) -> None:
    stream, stub = ends
    stream.send("Hgp1.1", "g")
    assert stub.recv(100) == b"$Hgp1.1#af$g#67"


def test_replies_come_one_by_one(ends: tuple[PacketStream, socket.socket]) -> None:
    stream, stub = ends
    stub.sendall(b"+$OK#9a+$00ff#")
    assert stream.receive() == b"OK"
    assert stream.receive_within(0) is None
    stub.sendall(b"2c")
    assert stream.receive() == b"00ff"
    assert stream.receive_within(0) is None


def test_a_reply_is_acknowledged_with_what_is_sent_next(ends: tuple[PacketStream, socket.socket]) -> None:
    """Alone it would stop a guest that has been let run."""
    stream, stub = ends
    stub.sendall(b"+$OK#9a+$OK#9a")
    assert (stream.receive(), stream.receive()) == (b"OK", b"OK")
    stream.send("g")
    assert stub.recv(100) == b"+$g#67"
    stub.sendall(b"+$00#60")
    assert stream.receive() == b"00"
    stream.settle()
    stream.settle()
    stream.interrupt()
    assert stub.recv(100) == b"+\x03"


def test_more_than_the_socket_takes_at_once_is_sent(ends: tuple[PacketStream, socket.socket]) -> None:
    stream, stub = ends
    pid = os.fork()
    if pid == 0:
        size = 0
        while size < 2_000_004:
            size += len(stub.recv(1 << 16))
        os._exit(0)
    stream.send("x" * 2_000_000)
    assert os.waitpid(pid, 0)[1] == 0


def test_the_other_end_gone_is_an_error(ends: tuple[PacketStream, socket.socket]) -> None:
    stream, stub = ends
    stub.sendall(b"+$OK#9a")
    stub.close()
    assert stream.receive() == b"OK"
    with pytest.raises(ConnectionError):
        stream.receive()
    with pytest.raises(OSError, match="pipe"):
        stream.send("g")
