"""The profile file that `set exo profile` names, read again whenever it has changed."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from exogdb.abi.profile import Profile, parse_profile
from exogdb.errors import FormatError, UsageError
from exogdb.home import expand_home
from exogdb.target import settings

__all__ = ["ProfileFile", "find_profile", "read_profile"]


@dataclass(frozen=True)
class ProfileFile:
    """What `set exo profile` names, as it was at `modified_ns`."""

    path: Path
    modified_ns: int


def find_profile() -> ProfileFile | None:
    """The file that is named; None if none is.

    :raise UsageError: there is no such file.
    """
    named = settings.profile_file()
    if not named:
        return None
    path = expand_home(Path(named))
    try:
        return ProfileFile(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise UsageError(f"`set exo profile {named}`: {error.strerror}") from error


@lru_cache(maxsize=8)
def read_profile(file: ProfileFile) -> Profile:
    """What the file says.

    :raise UsageError: it cannot be read, or is no profile.
    """
    try:
        return parse_profile(file.path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, FormatError) as error:
        raise UsageError(f"`set exo profile {file.path}`: {error}") from error
