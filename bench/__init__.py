"""Benchmarks: `make bench` runs every module in here that has `measure(bench: Bench) -> None`.

Add one by adding a file. What it measures is compared within one run and in turns, a b c a b c, never with a
number from another day: the machine's mood is then in all of them.
"""

__all__: list[str] = []
