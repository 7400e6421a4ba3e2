"""What the virtual CPU can do, as QEMU's object model says it: the vendor and single CPUID features."""

import json
from collections.abc import Iterable
from typing import Any

from exogdb.abi.check.facts import CpuModel
from exogdb.errors import MonitorError
from exogdb.reading import Unavailable
from exogdb.target.qemu.conversation import Conversation
from exogdb.target.qemu.monitor import run_monitor
from exogdb.target.qemu.qmp import ask_qmp

__all__ = ["read_cpu_model"]

_FIRST_CPU = "/machine/unattached/device[0]"


def read_cpu_model(features: Iterable[str]) -> CpuModel:
    """Vendor and `features` (QEMU's property names, such as `smep`) of CPU 0. All CPUs of a machine are alike.

    Asks QMP, else the monitor behind the GDB stub; the guest notices nothing. What cannot be had is `Unavailable`.
    """
    names = tuple(features)

    def ask(monitor: Conversation) -> dict[str, Any]:
        cpus = monitor.execute("query-cpus-fast")
        path = cpus[0]["qom-path"]
        return {name: monitor.execute("qom-get", {"path": path, "property": name}) for name in ("vendor", *names)}

    try:
        answer = ask_qmp(ask)
    except MonitorError as error:
        told = _ask_monitor(("vendor", *names))
        if told is None:
            missing = Unavailable(error.reason)
            return CpuModel(missing, dict.fromkeys(names, missing))
        answer = told
    return CpuModel(str(answer["vendor"]), {name: bool(answer[name]) for name in names})


def _ask_monitor(names: Iterable[str]) -> dict[str, Any] | None:
    """The properties of the device that is CPU 0 on QEMU's PC machines; None if it is none, or nobody answers."""
    try:
        kind = run_monitor(f"qom-get {_FIRST_CPU} type").strip()
        if not kind.endswith('-x86_64-cpu"'):
            return None
        return {name: json.loads(run_monitor(f"qom-get {_FIRST_CPU} {name}")) for name in names}
    except (MonitorError, ValueError):
        return None
