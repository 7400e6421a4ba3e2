"""Samples, their medians, and ratios between what was measured in turns.

>>> bench = Bench()
>>> bench.interleave({"x.plain": lambda: 2.0, "x.fast": lambda: 6.0}, "calls/s", rounds=3)
>>> bench.figures["x.fast"].ratio
3.0
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

__all__ = ["Bench", "Figure", "figures_to_json", "render_figures"]


@dataclass
class Figure:
    """The samples of one key. `ratios` are to `baseline`, each to the sample of the same round.

    `aim` is the least ratio that is asked for (for a figure without a baseline, the least value); `bound` is the
    key of what cannot be surpassed.
    """

    unit: str
    samples: list[float] = field(default_factory=list)
    baseline: str | None = None
    ratios: list[float] = field(default_factory=list)
    aim: float | None = None
    bound: str | None = None

    @property
    def ratio(self) -> float | None:
        """The median of the ratios, each taken within one round."""
        return median(self.ratios) if self.ratios else None

    @property
    def is_aim_met(self) -> bool:
        """Whether the aim is reached, or there is none."""
        reached = self.ratio if self.ratio is not None else median(self.samples)
        return self.aim is None or reached >= self.aim


class Bench:
    """Collects figures under dotted keys such as `trace.engine1.smp4`."""

    def __init__(self) -> None:
        self.figures: dict[str, Figure] = {}

    def record(self, key: str, value: float, unit: str) -> None:
        """Add one sample to `key`.

        :raise ValueError: `key` was recorded in another unit.
        """
        figure = self.figures.setdefault(key, Figure(unit))
        if figure.unit != unit:
            raise ValueError(f"{key} is in {figure.unit}, not in {unit}")
        figure.samples.append(value)

    def set_aim(self, key: str, aim: float, bound: str | None = None) -> None:
        """Say what the ratio of `key` should be at least, and which other key is as good as it can be."""
        self.figures[key].aim, self.figures[key].bound = aim, bound

    def interleave(self, measures: Mapping[str, Callable[[], float]], unit: str, rounds: int = 5) -> None:
        """Take every measure once a round, in turns; the first key is what the others are compared with."""
        baseline, *others = measures
        for _ in range(rounds):
            values = {key: measure() for key, measure in measures.items()}
            for key, value in values.items():
                self.record(key, value, unit)
            for key in others:
                self.figures[key].baseline = baseline
                self.figures[key].ratios.append(values[key] / values[baseline])


def render_figures(figures: Mapping[str, Figure]) -> str:
    """A table: key, median, range, unit, and the ratio to what it was compared with."""
    from tabulate import tabulate

    rows = [
        [
            key,
            f"{median(figure.samples):,.4g}",
            f"{min(figure.samples):,.4g} .. {max(figure.samples):,.4g}",
            figure.unit,
            f"{figure.ratio:.3g} x {figure.baseline}" if figure.ratio is not None else "",
            _describe_aim(figure, figures),
        ]
        for key, figure in figures.items()
    ]
    return tabulate(rows, ["key", "median", "range", "unit", "ratio", "aim"], disable_numparse=True)


def _describe_aim(figure: Figure, figures: Mapping[str, Figure]) -> str:
    if figure.aim is None:
        return ""
    if figure.is_aim_met:
        return f"{figure.aim:g}: met"
    bound = figures[figure.bound].ratio if figure.bound is not None else None
    return f"{figure.aim:g}: NOT met" + (f" ({figure.bound} has {bound:.3g})" if bound is not None else "")


def figures_to_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """The same by key, with every sample, for `build/bench.json`."""
    return {
        key: {
            "unit": figure.unit,
            "median": median(figure.samples),
            "min": min(figure.samples),
            "max": max(figure.samples),
            "samples": figure.samples,
            **({"ratio": figure.ratio, "baseline": figure.baseline} if figure.ratio is not None else {}),
            **({"aim": figure.aim, "met": figure.is_aim_met} if figure.aim is not None else {}),
        }
        for key, figure in figures.items()
    }
