"""Reading the eight MSRs of SYSCALL on four CPUs: by QMP in one round trip, and by RDMSR in the guest."""

from functools import partial

from bench.figures import Bench
from tests.harness.gdb import Gdb
from tests.harness.session import open_guest

__all__ = ["measure"]

CPUS = 4
ROUNDS = 15
# Time is taken inside GDB: the pipe that the command comes through is not what is measured. As after a stop, GDB
# knows no register.
PREPARE = """python
import time, gdb
from exogdb.target.cpus import all_cpus
from exogdb.target.msr.msrs import Via, read_msrs
from exogdb.x86.msr import SYSCALL_MSRS
def timed(via):
    gdb.execute("maintenance flush register-cache", to_string=True)
    start = time.perf_counter()
    read_msrs(all_cpus(), SYSCALL_MSRS, via)
    return (time.perf_counter() - start) * 1e3
end"""


def _milliseconds(gdb: Gdb, via: str) -> float:
    return float(gdb.run(f"python print(timed(Via.{via}))"))


def measure(bench: Bench) -> None:
    """Keys `msrs.all_cpus.best`, `.qmp` and `.rdmsr`, in ms, taken in turns in one guest."""
    with open_guest(
        smp=CPUS, attach=False, quick=False
    ) as guest:  # with all devices of a PC, whose state is saved, too
        guest.qemu.wait_serial("demo: pid")
        gdb = guest.gdb
        gdb.reply(f"target remote {guest.qemu.gdb_socket}")
        gdb.run(f"tbreak *{gdb.address('syscall_dispatch'):#x}")
        gdb.reply("continue")
        gdb.run(PREPARE)
        _milliseconds(gdb, "BEST")  # imports qemu.qmp
        routes = {f"msrs.all_cpus.{via.lower()}": via for via in ("BEST", "QMP", "RDMSR")}
        bench.interleave({key: partial(_milliseconds, gdb, via) for key, via in routes.items()}, "ms", ROUNDS)
