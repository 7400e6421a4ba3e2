"""QMP without the plugin: a connection of the tests' own."""

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["ask_qmp"]


def ask_qmp(path: Path, *commands: dict[str, Any]) -> list[Any]:
    """Answers to `commands`, on a connection of our own that is closed again for the plugin to use."""
    while (answers := _ask(path, ({"execute": "qmp_capabilities"}, *commands))) is None:
        pass
    return answers[1:]


def _ask(path: Path, commands: Iterable[dict[str, Any]]) -> list[Any] | None:
    """None if QEMU greets twice: it has only then noticed that its last client is gone, and begins anew."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        lines = connection.makefile("r")
        json.loads(lines.readline())
        answers: list[Any] = []
        for command in commands:
            connection.sendall(json.dumps(command).encode())
            answer = json.loads(lines.readline())
            while "event" in answer:
                answer = json.loads(lines.readline())
            if "QMP" in answer and not answers:
                return None
            assert "return" in answer, answer
            answers.append(answer["return"])
        return answers
