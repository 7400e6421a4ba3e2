"""A value read from the guest, never without its source; or the reason why there is none.

>>> Reading(0x200, "qmp")
Reading(value=512, source='qmp')
>>> Unavailable("QEMU has no QMP socket")
Unavailable(reason='QEMU has no QMP socket')
"""

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Reading", "Unavailable", "Value"]


@dataclass(frozen=True)
class Reading:
    """What the machine held. `source` is `gdb`, `qmp`, `rdmsr`, `memory` or `symbols`."""

    value: int
    source: str


@dataclass(frozen=True)
class Unavailable:
    """Nothing could be read. `reason` is shown as `unavailable (reason)`."""

    reason: str


Value: TypeAlias = Reading | Unavailable
