"""QMP without the plugin: a connection of the tests' own."""

import json
import socket
from pathlib import Path
from typing import Any

__all__ = ["ask_qmp"]


def ask_qmp(path: Path, *commands: dict[str, Any]) -> list[Any]:
    """Answers to `commands`, on a connection of our own that is closed again for the plugin to use."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        lines = connection.makefile("r")
        json.loads(lines.readline())
        answers = []
        for command in ({"execute": "qmp_capabilities"}, *commands):
            connection.sendall(json.dumps(command).encode())
            answer = json.loads(lines.readline())
            while "event" in answer:
                answer = json.loads(lines.readline())
            if "QMP" in answer:  # QEMU has only now noticed that the last client is gone, and begins anew
                assert not answers
                return ask_qmp(path, *commands)
            assert "return" in answer, answer
            answers.append(answer["return"])
        return answers[1:]
