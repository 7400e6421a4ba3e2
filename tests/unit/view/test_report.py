"""exogdb/view/report.py: a page that stands alone and cannot be broken by what it shows."""

import json
import re

from exogdb.trace.call import Call, CallState
from exogdb.trace.record import Header, Record, Shown
from exogdb.view.report import render_report, report_to_json


def _record(*texts: str) -> Record:
    record = Record(Header("execution log", "host clock", "exo-os.elf", 2), end={"calls": 1, "lost": 0})
    for sequence, text in enumerate(texts, start=1):
        arguments = (3, 0, 0, 0, 0, 0)
        call = Call(sequence, 0, 0x1000, 1, 101, arguments, entry_ns=500 * sequence, exit_ns=500 * sequence + 70)
        call.state, call.result = CallState.RETURNED, 5
        record.calls.append(call)
        record.shown.append(Shown("ipc_send", (text,), "5", "ping"))
    return record


def test_the_page_asks_the_network_for_nothing() -> None:
    page = render_report(_record("data"))
    assert re.findall(r"(?:src|href)\s*=|@import|url\(|fetch\(|XMLHttpRequest", page) == []
    assert "http://www.w3.org/2000/svg" in page
    assert page.count("http") == page.count("http://www.w3.org/2000/svg") + page.count("http-equiv")


def test_text_from_the_guest_cannot_leave_its_place() -> None:
    page = render_report(_record("</script><script>alert(1)</script> @STYLE@ @DATA@"))
    assert page.count("</script>") == 2
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    assert json.loads(found[1])["texts"][1] == "</script><script>alert(1)</script> @STYLE@ @DATA@"


def test_times_begin_at_zero_and_texts_are_stored_once() -> None:
    data = report_to_json(_record("same", "same"))
    columns = dict(zip(data["columns"], data["calls"], strict=True))
    assert (columns["entry"], columns["exit"]) == ([0, 500], [70, 570])
    assert columns["args"][0] == columns["args"][1]
    assert data["conversations"] == [{"channel": 3, "is_send": True, "process": 1, "messages": 2}]


def test_an_empty_trace_makes_a_page_too() -> None:
    data = report_to_json(_record())
    assert data["calls"] == [[]] * len(data["columns"])
    assert render_report(_record()).startswith("<!DOCTYPE html>")
