"""The report of a recorded trace, looked at in a real browser without a network."""

import re
import subprocess
from pathlib import Path

from exogdb.cli import main
from exogdb.launch.image import read_image
from exogdb.launch.logfilter import log_filter
from tests.harness.kernel import Kernel
from tests.harness.session import open_guest
from tests.integration.stops import attach_running

BROWSER_SECONDS = 60


def look(page: Path, profile: Path, fragment: str = "") -> str:
    """The page as it is after its script has run."""
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    network = ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"]
    done = subprocess.run(
        [*command, *network, "--dump-dom", f"{page.as_uri()}{fragment}"],
        capture_output=True,
        text=True,
        timeout=BROWSER_SECONDS,
        check=False,
    )
    assert 'data-ready="yes"' in done.stdout, done.stderr
    return done.stdout


def test_a_recorded_trace_in_a_browser(kernel: Kernel, tmp_path: Path) -> None:
    trace = tmp_path / "demo.trace"
    with open_guest(attach=False, smp=2, qemu=log_filter(read_image(kernel.elf))) as guest:
        attach_running(guest)
        guest.gdb.run(f"exo-syscall record {trace} --for 2")
    assert main(["report", str(trace)]) == 0
    page = trace.with_name("demo.trace.html")
    whole = look(page, tmp_path / "profile")
    calls = len(trace.read_text().splitlines()) - 2
    assert f"{calls:,} of {calls:,} calls" in whole
    assert '<tr data-name="ipc_send">' in whole
    assert re.search(r"<text[^>]*>channel 64</text>", whole)
    assert re.search(r"<text[^>]*>P\d+ sender</text>", whole)
    assert 'role="alert"></p>' in whole, "a warning about a trace without loss"
    sends = sum('"name": "ipc_send"' in line for line in trace.read_text().splitlines())
    filtered = look(page, tmp_path / "profile", "#filter=ipc_send")
    assert f"{sends:,} of {calls:,} calls" in filtered
    assert "ipc_recv(" not in filtered.split('id="calls"')[1].split("</table>")[0]
