"""`~` in the names of files that a user types."""

from pathlib import Path

__all__ = ["expand_home"]


def expand_home(path: Path) -> Path:
    """`path` with `~` or `~USER` replaced; as it is if there is no such user, so that there is no such file.

    >>> expand_home(Path("~nobody-of-that-name/kernel.toml"))
    PosixPath('~nobody-of-that-name/kernel.toml')
    """
    try:
        return path.expanduser()
    except RuntimeError:
        return path
