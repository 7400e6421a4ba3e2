"""Files that exogdb writes for GDB or QEMU to read, where only this user can."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exogdb.errors import UnavailableError

__all__ = ["OwnFiles", "temporary_directory"]

_PREFIX = "exogdb-"


class OwnFiles:
    """A directory that is made with its first file, and removed when GDB ends."""

    def __init__(self) -> None:
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._path: Path | None = None

    def write(self, name: str, content: bytes) -> Path:
        """The path of a new file, without symbolic links.

        :raise UnavailableError: it cannot be written.
        """
        try:
            path = self._make_directory() / name
            path.parent.mkdir(mode=0o700, exist_ok=True)  # or somebody has cleaned up
            path.write_bytes(content)
        except OSError as error:
            raise _to_unavailable(error) from error
        return path

    def hold(self, file: str | None) -> bool:
        """Whether `file` is one of these."""
        return self._path is not None and (file or "").startswith(f"{self._path}/")

    def _make_directory(self) -> Path:
        if self._path is None:
            self._directory = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
            self._path = Path(self._directory.name).resolve()
        return self._path


@contextmanager
def temporary_directory(prefix: str = _PREFIX) -> Iterator[Path]:
    """A directory for the block, removed behind it.

    :raise UnavailableError: it cannot be made.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
    except OSError as error:
        raise _to_unavailable(error) from error
    with made as name:
        yield Path(name)


def _to_unavailable(error: OSError) -> UnavailableError:
    where = error.filename or tempfile.gettempdir()
    return UnavailableError(f"{where} cannot be written: {error.strerror}; TMPDIR names another place")
