"""What loading the plugin costs: GDB from its start to the first command, without and with `gdbinit.py`."""

import os
import subprocess
import time

from bench.figures import Bench
from tests.harness.kernel import ROOT

__all__ = ["measure"]

# A user's Python keeps compiled modules.
CACHING = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def measure(bench: Bench) -> None:
    """Keys `startup.gdb` and `startup.plugin`, in seconds."""
    bench.interleave(
        {
            "startup.gdb": lambda: _seconds(),
            "startup.plugin": lambda: _seconds("-ex", f"source {ROOT / 'gdbinit.py'}"),
        },
        "s",
    )


def _seconds(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run(["gdb", "-nx", "-batch", *arguments], stdin=subprocess.DEVNULL, env=CACHING, check=True)
    return time.perf_counter() - start
