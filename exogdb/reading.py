"""A value read from the guest, never without its source; or the reason why there is none.

>>> Reading(0x200, "qmp")
Reading(value=512, source='qmp')
>>> Unavailable("QEMU has no QMP socket")
Unavailable(reason='QEMU has no QMP socket')
"""

from dataclasses import dataclass
from typing import TypeAlias

from exogdb.errors import TargetLostError, UnavailableError

__all__ = ["Reading", "Unavailable", "Value", "note"]


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


def note(error: UnavailableError) -> Unavailable:
    """Keep `error` as the reason for one missing value.

    :raise TargetLostError: it says that the guest is gone: nothing else can be read either.
    """
    if isinstance(error, TargetLostError):
        raise error
    return Unavailable(error.reason)
