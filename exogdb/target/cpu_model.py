"""What the virtual CPU can do, as QEMU's object model says it: the vendor and single CPUID features."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from exogdb.abi.check.facts import CpuModel
from exogdb.errors import MonitorError
from exogdb.reading import Unavailable
from exogdb.target.qmp import ask_qmp

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

__all__ = ["read_cpu_model"]


def read_cpu_model(features: Iterable[str]) -> CpuModel:
    """Vendor and `features` (QEMU's property names, such as `smep`) of CPU 0. All CPUs of a machine are alike.

    Asks QMP; the guest notices nothing. What cannot be had is `Unavailable` in the result.
    """
    names = tuple(features)

    async def ask(client: "QMPClient") -> dict[str, Any]:
        cpus: Any = await client.execute("query-cpus-fast")
        path = cpus[0]["qom-path"]
        return {
            name: await client.execute("qom-get", {"path": path, "property": name}) for name in ("vendor", *names)
        }

    try:
        answer = ask_qmp(ask)
    except MonitorError as error:
        missing = Unavailable(error.reason)
        return CpuModel(missing, dict.fromkeys(names, missing))
    return CpuModel(str(answer["vendor"]), {name: bool(answer[name]) for name in names})
