"""How the terminal wants its text: colour or not, and how wide.

Renderers take a `Style` and stay pure; only the command registry knows the real terminal.
"""

from dataclasses import dataclass

__all__ = ["PLAIN", "Style"]

_SGR = {
    "heading": "1",
    "name": "36",
    "symbol": "33",
    "address": "34",
    "good": "32",
    "warning": "35",
    "bad": "1;31",
    "faint": "2",
}


@dataclass(frozen=True)
class Style:
    """`colour` allows SGR sequences; `width` is in columns, 0 for unlimited.

    >>> Style(colour=False, width=80).paint("bad", "not canonical")
    'not canonical'
    """

    colour: bool = False
    width: int = 80

    def paint(self, role: str, text: str) -> str:
        """`text` in the colour of `role` (a key of the table above), or unchanged without colour."""
        return f"\x1b[{_SGR[role]}m{text}\x1b[0m" if self.colour and text else text


PLAIN = Style()
