"""exogdb/view/report.py: a page that stands alone and cannot be broken by what it shows."""

import base64
import hashlib
import json
import re

import pytest

from exogdb.errors import FormatError
from exogdb.trace.call import Call, CallState
from exogdb.trace.record import Header, RecordReader, Shown, call_to_json
from exogdb.view.report import render_report, report_to_json


def _record(*texts: str) -> RecordReader:
    lines = [Header("execution log", "host clock", "exo-os.elf", 2).to_json()]
    for sequence, text in enumerate(texts, start=1):
        arguments = (3, 0, 0, 0, 0, 0)
        call = Call(sequence, 0, 0x1000, 1, 101, arguments, entry_ns=500 * sequence, exit_ns=500 * sequence + 70)
        call.state, call.result = CallState.RETURNED, 5
        lines.append(call_to_json(call, Shown("ipc_send", (text,), "5", "ping")))
    return RecordReader(json.dumps(line) for line in [*lines, {"end": {"calls": 1, "lost": 0}}])


def test_the_page_asks_the_network_for_nothing() -> None:
    page = render_report(_record("data"))
    assert re.findall(r"(?:src|href)\s*=|@import|url\(|fetch\(|XMLHttpRequest", page) == []
    assert "http://www.w3.org/2000/svg" in page
    assert page.count("http") == page.count("http://www.w3.org/2000/svg") + page.count("http-equiv")


@pytest.mark.parametrize("element", ["style", "script"])
def test_the_policy_names_the_hash_of_what_stands_in_the_page(element: str) -> None:
    page = render_report(_record("data"))
    inside = page.split(f"<{element}>")[1].split(f"</{element}>")[0]
    digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
    assert f"{element}-src 'sha256-{digest}'" in page
    assert "unsafe" not in page.split("<title>")[0]


def test_text_from_the_guest_cannot_leave_its_place() -> None:
    page = render_report(_record("</script><script>alert(1)</script> @STYLE@ @DATA@"))
    assert page.count("</script>") == 2
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    assert "</script><script>alert(1)</script> @STYLE@ @DATA@" in json.loads(found[1])["texts"]


def test_times_begin_at_zero_and_texts_are_stored_once() -> None:
    data = report_to_json(_record("same", "same"))
    columns = dict(zip(data["columns"], data["calls"], strict=True))
    assert (columns["entry"], columns["exit"]) == ([0, 500], [70, 570])
    assert columns["args"][0] == columns["args"][1]
    assert data["names"] == [("ipc_send", 101)]
    assert data["texts"][columns["channel"][0]] == "3"


def test_an_empty_trace_makes_a_page_too() -> None:
    data = report_to_json(_record())
    assert data["calls"] == [[]] * len(data["columns"])
    assert render_report(_record()).startswith("<!DOCTYPE html>")


def test_a_broken_trace_makes_no_page() -> None:
    first = json.dumps(Header("execution log", "host clock", "exo-os.elf", 2).to_json())
    with pytest.raises(FormatError, match="line 2"):
        render_report(RecordReader([first, "{", "{"]))
