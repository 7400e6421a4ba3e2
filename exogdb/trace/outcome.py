"""How a trace went: what was seen, and whether anything can be missing.

The kernel's own counter of dispatched calls (`SYSCALL_COUNT`, where there is one) is compared with the
entries seen. The two are not taken at the same instant: a CPU may have been stopped between the stub's first
instruction and the counter, at either end of the trace, so each CPU may make a difference of one.
"""

from dataclasses import dataclass, field
from typing import Any

from exogdb.trace.execlog import LogDamage

__all__ = ["Outcome", "describe_damage"]


@dataclass
class Outcome:
    """`entries` and `returns` count every call, chosen or not. `dispatched` is what the kernel counted meanwhile.
    `doubtful` events were left out as repetitions and may have been none. `unwritten` says why the output does not
    have all that was seen, and is empty if it has."""

    entries: int = 0
    returns: int = 0
    shown: int = 0
    ambiguous: int = 0
    doubtful: int = 0
    cpus: int = 1
    dispatched: int | None = None
    seconds: float = 0.0
    damage: LogDamage | None = None
    ending: str = ""
    unwritten: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Records known to be missing."""
        missing = self.damage.lost if self.damage is not None else 0
        if self.dispatched is not None:
            missing = max(missing, abs(self.dispatched - self.entries) - self.cpus)
        return max(0, missing)

    def findings(self) -> list[str]:
        """Everything that a reader of the trace must know, one sentence each. Empty for a trace without loss."""
        found = list(self.problems)
        if self.dispatched is not None and abs(self.dispatched - self.entries) > self.cpus:
            found.append(f"the kernel dispatched {self.dispatched:,} calls and {self.entries:,} entries were seen")
        if self.damage is not None:
            found += describe_damage(self.damage)
        if self.ambiguous:
            found.append(f"{self.ambiguous:,} returns may be those of other calls; they are marked as guesses")
        if self.doubtful and (self.dispatched is None or self.dispatched > self.entries):
            found.append(
                f"{self.doubtful:,} times a CPU showed the exit that it had shown before: taken for a repetition, "
                "it may have been that of a new process with the same registers and page table"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """The last line of a recorded trace."""
        return {
            "calls": self.shown,
            "entries": self.entries,
            "returns": self.returns,
            "dispatched": self.dispatched,
            "lost": self.lost,
            "seconds": round(self.seconds, 6),
            "ending": self.ending,
            "problems": self.findings(),
        }


def describe_damage(damage: LogDamage) -> list[str]:
    """What was wrong with a log, one sentence each."""
    found = []
    if damage.announced_only:
        found.append(f"{damage.announced_only:,} records were announced in the log and never came")
    if damage.cut_bytes:
        found.append("the log ends in the middle of a record")
    if damage.unfiltered:
        other = "records of other addresses: QEMU was started with another -dfilter"
        found.append(f"the log holds {damage.unfiltered:,} {other}")
    if damage.foreign_lines:
        quoted = f'such as "{damage.first_foreign}"'
        found.append(f"the log holds {damage.foreign_lines:,} lines of something else, {quoted}")
    if damage.cpu_unknown:
        found.append(f"of {damage.cpu_unknown:,} records it cannot be told which CPU they are from")
    return found
