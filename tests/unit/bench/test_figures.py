"""bench/figures.py: ratios are taken within a round, and nothing is averaged away."""

import pytest

from bench.figures import Bench, figures_to_json, render_figures


def test_a_ratio_compares_samples_of_the_same_round() -> None:
    plain, fast = iter([1.0, 10.0, 4.0]), iter([3.0, 20.0, 8.0])
    bench = Bench()
    bench.interleave({"plain": lambda: next(plain), "fast": lambda: next(fast)}, "calls/s", rounds=3)
    assert bench.figures["fast"].ratios == [3.0, 2.0, 2.0]
    assert bench.figures["fast"].ratio == 2.0
    assert bench.figures["plain"].ratio is None


def test_the_measures_of_a_round_alternate() -> None:
    order: list[str] = []
    bench = Bench()

    def measure(name: str) -> float:
        order.append(name)
        return 1.0

    bench.interleave({"a": lambda: measure("a"), "b": lambda: measure("b")}, "s", rounds=2)
    assert order == ["a", "b", "a", "b"]


def test_a_key_keeps_its_unit() -> None:
    bench = Bench()
    bench.record("x", 1.0, "s")
    with pytest.raises(ValueError, match="x is in s, not in ms"):
        bench.record("x", 1.0, "ms")


def test_an_aim_is_met_or_not_and_what_is_possible_is_named() -> None:
    bench = Bench()
    bench.interleave({"none": lambda: 10.0, "good": lambda: 9.0, "bad": lambda: 8.0, "most": lambda: 8.7}, "x", 1)
    bench.record("times", 99.0, "times")
    bench.set_aim("good", 0.9)
    bench.set_aim("bad", 0.9, bound="most")
    bench.set_aim("times", 100)
    text = render_figures(bench.figures)
    assert "0.9: met" in text
    assert "0.9: NOT met (most has 0.87)" in text
    assert "100: NOT met" in text
    assert [figures_to_json(bench.figures)[key]["met"] for key in ("good", "bad", "times")] == [True, False, False]


def test_both_forms_have_every_key() -> None:
    bench = Bench()
    bench.interleave({"break.none": lambda: 5e6, "break.plan": lambda: 4e6}, "calls/s", rounds=1)
    assert figures_to_json(bench.figures)["break.plan"] == {
        "unit": "calls/s",
        "median": 4e6,
        "min": 4e6,
        "max": 4e6,
        "samples": [4e6],
        "ratio": 0.8,
        "baseline": "break.none",
    }
    assert "0.8 x break.none" in render_figures(bench.figures)
