"""Behind each `monitor` command of the user's: whether the guest is another one now, without GDB's knowing."""

import gdb

from exogdb.interrupts import undisturbed
from exogdb.target.hooks import run_behind

__all__: list[str] = []


def _look_behind_users() -> None:
    """Not behind exogdb's own questions, which reset nothing."""
    from exogdb.target.qemu.monitor import is_asking

    if not is_asking():
        _look()


@undisturbed
def _look() -> None:
    """Have GDB forget what is old by now, and say so."""
    from exogdb.errors import TargetLostError
    from exogdb.target.connection import broken_connection_told
    from exogdb.target.reset import notice_reset

    try:
        with broken_connection_told():
            said = notice_reset()
    except TargetLostError as error:
        said = str(error)
    if said:
        gdb.write(f"{said}\n", gdb.STDERR)


run_behind("monitor", _look_behind_users)
