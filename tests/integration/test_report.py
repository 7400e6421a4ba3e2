"""The report of a recorded trace, looked at and used in a real browser without a network."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exogdb.cli import main
from exogdb.launch.image import read_image
from exogdb.launch.logfilter import log_filter
from exogdb.trace.call import Call, CallState, Parent
from exogdb.trace.record import Header, Record, Shown, call_to_json, read_record
from exogdb.trace.summary import Summary
from exogdb.view.summary import summary_to_json
from tests.harness.browser import Browser
from tests.harness.kernel import Kernel
from tests.harness.session import open_guest
from tests.integration.stops import attach_running

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
ERROR = (1 << 64) - 9


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def demo(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """The page of a trace of the demo, and that trace."""
    trace = tmp_path_factory.mktemp("demo") / "demo.trace"
    with open_guest(attach=False, smp=2, qemu=log_filter(read_image(kernel.elf))) as guest:
        attach_running(guest)
        guest.gdb.run(f"exo-syscall record {trace} --for 2")
    return make_page(trace), read_record(trace.read_text().splitlines())


def make_page(trace: Path) -> Path:
    assert main(["report", str(trace)]) == 0
    return trace.with_name(trace.name + ".html")


def write_trace(path: Path, *calls: tuple[Call, Shown], kernel: str = "exo-os.elf", end: bool = True) -> Path:
    """The page of a trace with those calls."""
    header = Header("execution log", "host clock", kernel, 2, "2026-01-02T03:04:05+00:00")
    lines = [header.to_json(), *(call_to_json(*call) for call in calls)]
    lines += [{"end": {"calls": len(calls), "lost": 0, "problems": []}}] if end else []
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return make_page(path)


def one_call(
    sequence: int, name: str = "read", argument: str = "descriptor=3", **changes: Any
) -> tuple[Call, Shown]:
    """A call on CPU 0 that begins at `sequence` ms and takes half of one; `changes` to it."""
    start = sequence * 1_000_000
    call = Call(sequence, 0, 0x1000, 1, 302, (3, 0, 0, 0, 0, 0), entry_ns=start, exit_ns=start + 500_000)
    call.state, call.result, call.return_cpu = CallState.RETURNED, 8, 0
    for field, value in changes.items():
        setattr(call, field, value)
    result = "-9 BadDescriptor" if call.failed else "8"
    return call, Shown(name, (argument,), result, "reader")


def shown_calls(browser: Browser) -> list[str]:
    return list(browser.texts("#calls td.text"))


def test_a_recorded_trace_in_a_browser(demo: tuple[Path, Record], browser: Browser) -> None:
    page, record = demo
    browser.open(page)
    calls = len(record.calls)
    assert browser.text("#matches") == f"{calls:,} of {calls:,} calls"
    assert browser.texts("#warnings li") == [], "a warning about a trace without loss"
    assert any(re.fullmatch(r"P\d+ sender", text) for text in browser.texts(".channel ul button"))
    assert "channel 64" in browser.texts(".channel > button")
    sends = sum(shown.name == "ipc_send" for shown in record.shown)
    browser.open(page, "#filter=ipc_send")
    assert browser.text("#matches") == f"{sends:,} of {calls:,} calls"
    assert all(text.startswith("ipc_send(") for text in shown_calls(browser))
    assert browser.complaints == []


def test_counts_and_latencies_are_those_of_the_summary(demo: tuple[Path, Record], browser: Browser) -> None:
    page, record = demo
    summary, names = Summary(), {}
    for call, shown in zip(record.calls, record.shown, strict=True):
        summary.add(call)
        names[call.number] = shown.name
    truth = summary_to_json(summary, lambda number: names[number], "")["syscalls"]
    browser.open(page)
    counted = browser.script(
        "summarise(shown, nameOf).map((e) => [e.name, e.count, e.errors, e.unfinished,"
        " e.minimum ?? null, e.median ?? null, e.p99 ?? null, e.maximum ?? null,"
        " [...e.buckets].map(([b, n]) => [b < 0 ? 0 : 2 ** b, n])])"
    )
    assert {entry[0]: entry[1:] for entry in counted} == {
        entry["name"]: [
            *(entry[key] for key in ("count", "errors", "unfinished")),
            *((entry["latency_ns"] or {}).get(key) for key in ("min", "median", "p99", "max")),
            [[bucket["from_ns"], bucket["count"]] for bucket in entry["histogram"] if bucket["count"]],
        ]
        for entry in truth
    }


def test_messages_are_those_of_the_trace(demo: tuple[Path, Record], browser: Browser) -> None:
    page, record = demo
    browser.open(page)
    truth = Counter(
        (str(call.arguments[0]), "senders" if shown.name == "ipc_send" else "receivers", call.process)
        for call, shown in zip(record.calls, record.shown, strict=True)
        if shown.name in ("ipc_send", "ipc_recv") and call.state is CallState.RETURNED and not call.failed
        if call.arguments is not None
    )
    sides = "['senders', 'receivers']"
    found = browser.script(
        f"findChannels().flatMap((c) => {sides}.flatMap((s) => [...c[s]].map(([p, n]) => [c.name, s, p, n])))"
    )
    assert {(name, side, process): count for name, side, process, count in found} == truth


FILTERS: dict[str, list[int]] = {
    "read": [1, 2, 4],
    "read,open": [1, 2, 3, 4],
    "!read": [3, 5],
    "P2": [2],
    "cpu1": [3],
    "error": [2],
    "unfinished": [4],
    "guess": [5],
    ">1ms": [3, 4],
    "<100us": [5],
    "#3": [3],
    '"message 0"': [5],
    "READER !error write,read !#1": [4, 5],
    "nothing-of-this": [],
    '! , ""': [1, 2, 3, 4, 5],
}


def test_the_filter(tmp_path: Path, browser: Browser) -> None:
    calls = [
        one_call(1),
        one_call(2, process=2, result=ERROR),
        one_call(3, "open", cpu=1, exit_ns=6_000_000),
        one_call(4, state=CallState.IN_PROGRESS, exit_ns=None, result=None),
        one_call(5, "write", 'text="message 0"', is_ambiguous=True, exit_ns=5_010_000),
    ]
    browser.open(write_trace(tmp_path / "t", *calls))
    for words, sequences in FILTERS.items():
        browser.script(f"setFilter({json.dumps(words)})")
        assert browser.script("shown.map((i) => calls.seq[i])") == sequences, words
        assert browser.text("#matches") == f"{len(sequences)} of 5 calls"
    assert browser.complaints == []


def test_text_from_the_guest_can_neither_run_nor_hide(tmp_path: Path, browser: Browser) -> None:
    unseen = "a\u2028b\u202ec\x00\x1b[31m\ud800"
    page = write_trace(
        tmp_path / "t",
        one_call(1, HOSTILE, HOSTILE),
        one_call(2, unseen, "x" * 50_000),
        kernel=HOSTILE,
    )
    browser.open(page, f"#filter=%22{HOSTILE[:9]}", width=400)
    assert browser.script("document.title") == f"System calls of {HOSTILE}"
    assert shown_calls(browser) == [f"{HOSTILE}({HOSTILE}) = 8"]
    browser.script("setFilter('')")
    assert "a\\u{2028}b\\u{202e}c\\u{0}\\u{1b}[31m\\u{d800}" in browser.texts("#summary tbody th")
    assert browser.script("document.documentElement.scrollWidth") == 400
    assert browser.script("document.querySelectorAll('script, img').length") == 2
    assert browser.complaints == []


def test_nothing_but_its_own_script_may_run(tmp_path: Path, browser: Browser) -> None:
    browser.open(write_trace(tmp_path / "t", one_call(1)))
    browser.script(
        "document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.ran = 1' }))"
    )
    assert browser.script("window.ran ?? null") is None
    browser.wait_for("true")
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)


@pytest.mark.parametrize("calls", [0, 1])
def test_a_trace_of_next_to_nothing(calls: int, tmp_path: Path, browser: Browser) -> None:
    browser.open(write_trace(tmp_path / "t", *(one_call(each + 1) for each in range(calls))))
    assert browser.text("#matches") == f"{calls} of {calls} calls"
    assert browser.texts("#facts dd")[2] == ("500 µs" if calls else "–")
    assert browser.text("#range") == ("500 µs from 0 ns on" if calls else "")
    for key in "+-adnp0":
        browser.script("document.getElementById('timeline').focus()")
        browser.press(key)
    assert browser.complaints == []


def test_what_a_trace_lacks_is_said(tmp_path: Path, browser: Browser) -> None:
    calls = [
        one_call(1, state=CallState.IN_PROGRESS, exit_ns=None, result=None),
        one_call(2, is_ambiguous=True),
        one_call(3, state=CallState.NEVER_RETURNED, exit_ns=None, result=None),
        (Call(0, 0, 0x1000, 1, exit_ns=9_000_000, state=CallState.ENTERED_BEFORE, result=1), Shown("?", (), "1")),
    ]
    browser.open(write_trace(tmp_path / "t", *calls, end=False))
    assert browser.texts("#warnings li") == [
        "This trace was cut off: its last line is missing, and so may be calls."
    ]
    assert shown_calls(browser) == [
        "read(descriptor=3) = (unfinished)",
        "read(descriptor=3) = 8 (guess: another call in progress fits as well)",
        "read(descriptor=3) = ?",
        "(a call entered before the trace) = 1",
    ]
    assert "> 8.00 ms" in browser.texts("#calls td")
    assert "Not counted: 1 return of calls entered before the trace" in browser.text("#coarse")


def test_a_cpu_is_in_a_call_only_until_it_does_something_else(tmp_path: Path, browser: Browser) -> None:
    blocked = one_call(1, exit_ns=9_000_000)
    browser.open(write_trace(tmp_path / "t", one_call(3, process=2), one_call(4, process=2, cpu=1), blocked))
    assert browser.script(
        "shown.map((i) => [calls.seq[i], begin[i] / 1e6, heldUntil[i] / 1e6, end[i] / 1e6])"
    ) == [
        [3, 2, 2.5, 2.5],
        [4, 3, 3.5, 3.5],
        [1, 0, 2, 8],
    ]


def test_keys_alone_lead_through_the_page(tmp_path: Path, browser: Browser) -> None:
    browser.open(write_trace(tmp_path / "t", *(one_call(each, argument=f"n={each}") for each in range(1, 10))))
    stops = []
    for _ in range(12):
        browser.press("Tab")
        stops.append(browser.script("document.activeElement.id || document.activeElement.name || ''"))
    assert stops[:5] == ["filter", "clear", "windowed", "", "rows"]
    assert "timeline" in stops
    browser.script("document.getElementById('timeline').focus()")
    browser.press("n", "n", "n", "p")
    assert "read(n=2) = 8" in browser.text("#details")
    before = browser.script("state.to - state.from")
    browser.press("+")
    assert browser.script("state.to - state.from") < before
    browser.press("Enter")
    assert browser.script("document.activeElement.closest('tr').dataset.call") == "1"
    assert "call=2" in browser.script("location.hash")


def test_a_call_is_found_by_a_click_and_sorted_by_its_length(tmp_path: Path, browser: Browser) -> None:
    long = one_call(2, "wait", exit_ns=8_000_000)
    browser.open(write_trace(tmp_path / "t", one_call(1), long, one_call(9)))
    browser.click("#timeline", down=0.8)  # below the axis is one lane, and in its middle the long call
    browser.wait_for("document.getElementById('details').innerText")
    assert "wait(descriptor=3) = 8" in browser.text("#details")
    browser.click("#calls th:nth-child(5) button")
    assert shown_calls(browser)[0].startswith("wait(")
    browser.click("#summary tbody tr:nth-child(2) button")
    assert browser.text("#matches") == "1 of 3 calls"


def test_a_call_says_whose_child_its_process_is(tmp_path: Path, browser: Browser) -> None:
    child = one_call(2, "getpid", process=2, parent=Parent(1, is_guess=True))
    browser.open(write_trace(tmp_path / "t", one_call(1), child))
    for row, words in ((1, "unknown"), (2, "P1 reader (guess: it was not seen starting)")):
        browser.click(f"#calls tbody tr:nth-child({row}) button")
        browser.wait_for("document.getElementById('details').innerText")
        assert browser.text("#details").split("child of")[1].split("Zoom")[0].strip() == words


def test_every_control_has_a_name(demo: tuple[Path, Record], browser: Browser) -> None:
    browser.open(demo[0])
    nodes = browser.ask("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "checkbox", "radio", "searchbox", "application", "region", "image", "table"}
    controls = [node for node in nodes if node.get("role", {}).get("value") in roles]
    assert len(controls) > 20
    unnamed = [node["role"]["value"] for node in controls if not node.get("name", {}).get("value")]
    assert [role for role in unnamed if role != "table"] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_told_apart(scheme: str, demo: tuple[Path, Record], browser: Browser) -> None:
    """WCAG 2.1: 4.5 to 1 for text, 3 to 1 for the edges of controls and for what a drawing shows."""
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(demo[0])
    colours = browser.script(
        "Object.fromEntries(['ink', 'faint', 'bad', 'accent', 'control', 'ground', 'band', 'lane']"
        ".map((n) => [n, cssColour(`--${n}`).trim()]))"
    )
    palette = browser.script("PALETTE")
    browser.ask("Emulation.setEmulatedMedia", features=[])
    for ground in ("ground", "band"):
        for ink in ("ink", "faint", "bad", "accent"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert contrast(colours["control"], colours[ground]) >= 3, ground
    for colour in palette:
        assert contrast(colour, colours["lane"]) >= 2.8, colour


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours such as `#1b2130`."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_narrow_window_needs_no_scrolling_to_the_side(demo: tuple[Path, Record], browser: Browser) -> None:
    browser.open(demo[0], "#rows=process", width=400)
    assert browser.script("document.documentElement.scrollWidth") == 400


def test_a_long_name_leaves_room_for_the_rest(tmp_path: Path, browser: Browser) -> None:
    call, shown = one_call(1, "a_call_with_a_name_" * 4)
    browser.open(write_trace(tmp_path / "t", (call, replace(shown, program="a/long/path/" * 8))), width=800)
    table = "document.getElementById('calls').parentElement"
    assert browser.script(f"{table}.scrollWidth <= {table}.clientWidth")
    assert browser.script("document.querySelector('#calls td.text').clientWidth") > 250
    assert browser.script("document.querySelector('#calls td.who').title") == "P1 " + "a/long/path/" * 8


def test_it_prints_dark_on_white(demo: tuple[Path, Record], browser: Browser) -> None:
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.open(demo[0])
    browser.script(
        "addEventListener('beforeprint', () => { window.printed = [cssColour('--ground'), cssColour('--ink')] })"
    )
    assert browser.ask("Page.printToPDF")["data"]
    browser.ask("Emulation.setEmulatedMedia", features=[])
    assert contrast(*browser.script("printed.map((each) => each.trim())")) > 10
