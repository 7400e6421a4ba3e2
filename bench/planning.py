"""Planning breakpoints on all system calls: the first time, and when nothing in the kernel has changed since."""

from bench.figures import Bench
from tests.harness.gdb import Gdb
from tests.harness.session import open_guest

__all__ = ["measure"]

ROUNDS = 5
BUILDS = {"release": "", "debug": "debug", "today": "today", "stripped": "stripped"}
# Time is taken inside GDB: the pipe that the command comes through is not what is measured.
PREPARE = """python
import time
from exogdb.target.breakpoint import planning
from exogdb.target.cpus import selected_cpu
def timed(forget):
    if forget:
        planning.forget_plans()
    start = time.perf_counter()
    planning.read_plan(selected_cpu())
    return time.perf_counter() - start
timed(True)  # imports unicorn
end"""


def measure(bench: Bench) -> None:
    """Keys `plan.BUILD.cold` and `plan.BUILD.cached`, in seconds, for the table's sixteen numbers."""
    for build, variant in BUILDS.items():
        with open_guest("run=demo", variant=variant) as guest:
            guest.gdb.run(PREPARE)
            for forget, name in ((True, "cold"), (False, "cached")):
                for _ in range(ROUNDS):
                    bench.record(f"plan.{build}.{name}", _seconds(guest.gdb, forget=forget), "s")


def _seconds(gdb: Gdb, *, forget: bool) -> float:
    return float(gdb.run(f"python print(timed({forget}))"))
