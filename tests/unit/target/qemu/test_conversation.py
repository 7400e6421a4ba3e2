"""A peer that behaves, one that talks nonsense, and one that says nothing."""

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from exogdb.interrupts import interrupts_held
from exogdb.target.qemu.conversation import Conversation, QmpError, RefusedError

GREETING = b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}\r\n'
GOOD, EVENT = b'{"return": {}}\r\n', b'{"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 0}}\r\n'
NO_GREETING = "does not greet as QMP; is it QEMU's human monitor?"


@contextmanager
def peer(*answers: bytes, is_silent: bool = False) -> Iterator[socket.socket]:
    """A connection to somebody who has said `answers` already, and hangs up behind them unless he `is_silent`."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"".join(answers))
        if not is_silent:
            theirs.shutdown(socket.SHUT_WR)
        yield ours


def ask(connection: socket.socket, seconds: float = 5) -> Any:
    return Conversation(connection, seconds).execute("query-migrate")


def test_commands_go_out_in_order_and_as_short_as_they_can_be() -> None:
    """QEMU reads them byte by byte. The first one does not wait for the answer to the negotiation."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(GREETING)
        monitor = Conversation(ours, 5)
        theirs.sendall(EVENT + GOOD + EVENT + b'{"return": {"status": "none"}}\r\n')
        assert monitor.execute("query-migrate") == {"status": "none"}
        theirs.sendall(b'{"return": []}\n')
        assert monitor.execute("qom-get", {"path": "/machine", "property": "type"}) == []
        sent = theirs.recv(4096).decode()
    assert sent.startswith('{"execute":"qmp_capabilities"}{"execute":"query-migrate"}{"execute":"qom-get",')
    assert json.loads(sent[sent.rindex('{"execute"') :])["arguments"]["path"] == "/machine"


def test_a_descriptor_goes_along_with_its_command() -> None:
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    with ours, theirs:
        theirs.sendall(GREETING + GOOD + GOOD)
        monitor = Conversation(ours, 5)
        assert monitor.takes_descriptors
        monitor.execute("add-fd", {"fdset-id": 1}, writing)
        os.close(writing)
        _, descriptors, _, _ = socket.recv_fds(theirs, 4096, 1)
    os.write(descriptors[0], b"through")
    os.close(descriptors[0])
    assert os.read(reading, 10) == b"through"
    os.close(reading)


def test_a_refusal_has_the_monitors_own_words() -> None:
    refusal = b'{"error": {"class": "CommandNotFound", "desc": "no such thing"}}\r\n'
    with peer(GREETING, GOOD, refusal) as connection, pytest.raises(RefusedError, match=r"^no such thing$"):
        ask(connection)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ((b"QEMU 7.2.22 monitor - type 'help' for more information\r\n",), NO_GREETING),
        ((b'{"hello": 1}\r\n',), NO_GREETING),
        ((b"[]\r\n",), NO_GREETING),
        ((b"\xff\xfe\r\n",), NO_GREETING),
        ((b"[" * 100_000 + b"\r\n",), NO_GREETING),
        ((), "closed the connection"),
        ((GREETING,), "closed the connection"),
        ((GREETING, GOOD), "closed the connection"),
        ((GREETING, GOOD, b'{"return": {'), "closed the connection"),
        ((GREETING, b"what?\r\n"), "answers with what is no QMP"),
        ((GREETING, GOOD, b'{"neither": 1}\r\n'), "answers with what is no QMP"),
        ((GREETING, GOOD, b'{"error": "no object"}\r\n'), "answers with what is no QMP"),
        ((GREETING, GOOD, b'{"error": {"class": "X"}}\r\n'), "answers with what is no QMP"),
    ],
)
def test_nonsense_is_one_sentence(answers: tuple[bytes, ...], reason: str) -> None:
    with peer(*answers) as connection, pytest.raises(QmpError, match=reason) as caught:
        ask(connection)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("answers", [(), (GREETING,), (GREETING, GOOD, b'{"return": ')])
def test_silence_ends_at_the_deadline(answers: tuple[bytes, ...]) -> None:
    with peer(*answers, is_silent=True) as connection, pytest.raises(QmpError, match="no answer within 0 seconds"):
        ask(connection, 0.1)


def test_an_answer_without_an_end_is_given_up() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        flood = threading.Thread(target=flood_with, args=(theirs,))
        flood.start()
        with pytest.raises(QmpError, match="more than any answer has"):
            Conversation(ours, 60)
    flood.join()


def flood_with(connection: socket.socket) -> None:
    with connection:
        try:
            while True:
                connection.sendall(b" " * 65536)
        except OSError:
            return  # the other end has had enough


@pytest.mark.parametrize("press", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_wait(press: signal.Signals) -> None:
    was = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with peer(is_silent=True) as connection, pytest.raises(KeyboardInterrupt):
            wait_and_be_interrupted(lambda: ask(connection, 60), press)
    finally:
        signal.signal(signal.SIGTERM, was)


def wait_and_be_interrupted(wait: Callable[[], object], press: signal.Signals) -> None:
    with interrupts_held():
        signal.pthread_kill(threading.main_thread().ident or 0, press)
        wait()
