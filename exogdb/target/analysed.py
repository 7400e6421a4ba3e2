"""The system-call paths that were analysed in this session: what the unwinder asks for at every frame.

A module of its own, because loading exogdb pays for it: `exogdb.target.path` analyses.
"""

TYPE_CHECKING = False  # importing it takes longer than this module
if TYPE_CHECKING:
    from exogdb.abi.stub.entry_path import EntryPath

__all__ = ["analysed_paths", "keep_path"]

# By entry, the latest one last.
_paths: dict[int, "EntryPath"] = {}


def analysed_paths() -> list["EntryPath"]:
    """Every one, the latest first. Nothing is read."""
    return list(reversed(_paths.values()))


def keep_path(path: "EntryPath") -> None:
    """It was analysed just now."""
    _paths.pop(path.entry, None)
    _paths[path.entry] = path
