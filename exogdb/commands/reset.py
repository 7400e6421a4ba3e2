"""Behind each `monitor` command of the user's: whether the guest is another one now, without GDB's knowing."""

import gdb

from exogdb.interrupts import undisturbed

__all__ = ["look_behind_monitor"]

_HOOK = f"""
define hookpost-monitor
python from {__name__} import look_behind_monitor; look_behind_monitor()
end
"""


@undisturbed
def look_behind_monitor() -> None:
    """Have GDB forget what is old by now, and say so. Not behind exogdb's own questions, which reset nothing."""
    from exogdb.errors import TargetLostError
    from exogdb.target.connection import broken_connection_told
    from exogdb.target.qemu.monitor import is_asking
    from exogdb.target.reset import notice_reset

    if is_asking():
        return
    try:
        with broken_connection_told():
            said = notice_reset()
    except TargetLostError as error:
        said = str(error)
    if said:
        gdb.write(f"{said}\n", gdb.STDERR)


gdb.execute(_HOOK)
