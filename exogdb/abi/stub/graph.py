"""Walks over a graph that is found out while walking: code, followed from instruction to instruction."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

__all__ = ["explore", "find_reachable", "reverse_edges"]

_Node = TypeVar("_Node")


def explore(
    starts: Iterable[_Node], find_following: Callable[[_Node], list[_Node]], most: int
) -> dict[_Node, list[_Node]]:
    """Every node that can be reached from `starts`, with what follows it; the `most` nearest of them.

    >>> explore([1], lambda n: [n + 1] if n < 3 else [], most=10)
    {1: [2], 2: [3], 3: []}
    """
    edges: dict[_Node, list[_Node]] = {}
    waiting = deque(starts)
    while waiting and len(edges) < most:
        node = waiting.popleft()
        if node not in edges:
            edges[node] = find_following(node)
            waiting += edges[node]
    return edges


def find_reachable(starts: Iterable[_Node], edges: Mapping[_Node, list[_Node]]) -> frozenset[_Node]:
    """Every node that can be reached from one of `starts`, those included."""
    reached = set(starts)
    waiting = list(reached)
    while waiting:
        for node in edges.get(waiting.pop(), []):
            if node not in reached:
                reached.add(node)
                waiting.append(node)
    return frozenset(reached)


def reverse_edges(edges: Mapping[_Node, list[_Node]]) -> dict[_Node, list[_Node]]:
    """What leads to each node.

    >>> reverse_edges({1: [2, 3], 2: [3]})
    {2: [1], 3: [1, 2]}
    """
    sources: dict[_Node, list[_Node]] = {}
    for node, following in edges.items():
        for successor in following:
            sources.setdefault(successor, []).append(node)
    return sources
