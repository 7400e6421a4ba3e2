"""exogdb/launch/sockets.py: a socket that is bound, but not yet listened to, refuses connections."""

import socket
from pathlib import Path

import pytest

from exogdb.launch.sockets import is_listening


@pytest.mark.parametrize("name", ["plain", "with a blank", "über"])
def test_bound_is_not_listening(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert not is_listening(path)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(path))
        assert not is_listening(path)
        with pytest.raises(ConnectionRefusedError):
            client.connect(str(path))
        server.listen(1)
        assert is_listening(path)
    assert not is_listening(path)


def test_a_file_is_no_socket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not is_listening(tmp_path / "file")
