"""Answers that are worked out when somebody asks for them.

An entry stub has a hundred instructions and eighteen registers at each, and most commands ask for those of one.

>>> squares = OnDemand(range(3), lambda number: number * number)
>>> squares[2], dict(squares), 5 in squares
(4, {0: 0, 1: 1, 2: 4}, False)
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeVar

__all__ = ["OnDemand"]

K = TypeVar("K")
V = TypeVar("V")


class OnDemand(Mapping[K, V]):
    """A mapping from each of `keys` to what `derive` says, which must always say the same. Kept once derived."""

    def __init__(self, keys: Collection[K], derive: Callable[[K], V]) -> None:
        self._keys = keys
        self._derive = derive
        self._known: dict[K, V] = {}

    def __getitem__(self, key: K) -> V:
        if key not in self._known:
            if key not in self._keys:
                raise KeyError(key)
            self._known[key] = self._derive(key)
        return self._known[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
