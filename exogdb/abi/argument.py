"""An argument of a system call, ready to be shown."""

from dataclasses import dataclass

__all__ = ["ArgumentText"]


@dataclass(frozen=True)
class ArgumentText:
    """An argument by the handler's name for it; `value` is already text, `text` a string it points at."""

    name: str
    value: str
    text: str = ""
