"""MSRs of a CPU: from the GDB stub's registers, from QEMU's device state, or by RDMSR in the guest.

QEMU's stub knows EFER and the three bases only. The rest comes from the state that QEMU would migrate, read by
one QMP round trip for all CPUs. Both are asked for EFER, the bases, CR3 and RIP on every read: if they disagree,
the device state is not that of the guest in front of us and is refused. Only where there is no usable device
state is RDMSR executed in the guest.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TypeAlias

from exogdb.errors import FormatError, TargetLostError, UnavailableError
from exogdb.reading import Reading, Unavailable, Value, note
from exogdb.target.cpus import Cpu, cpus_in_turn, selected_cpu
from exogdb.target.qemu.device_state import read_device_state
from exogdb.target.qemu.vmstate import decode_device_state
from exogdb.target.qemu.vmstate_x86 import CpuState
from exogdb.target.registers import read_registers
from exogdb.x86.msr import MsrSpec, parse_msr

__all__ = ["Via", "read_cpu_states", "read_msr", "read_msrs"]

# What both sources have, by the stub's name and the device state's: it tells another guest, and another stop.
_CROSS_CHECKED: Mapping[str, str] = {
    "efer": "IA32_EFER",
    "k_gs_base": "IA32_KERNEL_GS_BASE",
    "gs_base": "IA32_GS_BASE",
    "fs_base": "IA32_FS_BASE",
    "cr3": "cr3",
    "rip": "rip",
}
_States: TypeAlias = Mapping[int, CpuState] | Unavailable  # by QEMU's CPU index


class Via(Enum):
    """Where to read from. `BEST` is the stub, then the device state, then RDMSR in the guest.

    `QUIET` is the same without RDMSR: for everything that looks on behalf of another question.
    """

    BEST = "best"
    QUIET = "quiet"
    GDB = "gdb"
    QMP = "qmp"
    RDMSR = "rdmsr"


def read_msrs(cpus: Iterable[Cpu], specs: Iterable[MsrSpec], via: Via = Via.BEST) -> dict[int, dict[str, Value]]:
    """CPU index to MSR name to value. The guest must be stopped.

    Nothing in the guest changes, except where a value's source says `rdmsr`: then that CPU executed RDMSR and was
    restored. QMP is asked at most once, however many CPUs and MSRs are wanted.
    :raise TargetLostError: the connection broke.
    """
    cpus, specs = list(cpus), list(specs)
    if via is Via.RDMSR:
        return {cpu.index: _by_rdmsr(cpu, specs) for cpu in cpus}
    if via is Via.GDB:
        return {cpu.index: _by_stub(cpu, specs) for cpu in cpus}
    from_stub = [spec for spec in specs if spec.stub and via is not Via.QMP]
    rest = [spec for spec in specs if spec not in from_stub]
    states = _states_or_reason() if rest else None
    found = _read_without_touching(cpus, from_stub, rest, states)
    if via is Via.BEST and isinstance(states, Unavailable):
        for cpu in cpus:
            found[cpu.index] |= _instead_of_state(cpu, rest, states)
    return {cpu.index: {spec.name: found[cpu.index][spec.name] for spec in specs} for cpu in cpus}


def read_msr(cpu: Cpu, name: str, via: Via = Via.QUIET) -> int:
    """The value of one MSR by any of its names, for callers that cannot go on without it. See `read_msrs`.

    Nothing in the guest changes unless `via` says so.
    :raise UnavailableError: no such source has it.
    """
    spec = parse_msr(name)
    value = read_msrs([cpu], [spec], via)[cpu.index][spec.name]
    if isinstance(value, Unavailable):
        raise UnavailableError(f"{spec.name} of CPU {cpu.index} is unavailable ({value.reason})")
    return value.value


def read_cpu_states() -> Mapping[int, CpuState]:
    """QEMU's device state of every CPU by its index, not yet checked against the stub. Nothing in the
    guest changes.

    :raise MonitorError: no QMP monitor can be had.
    :raise UnavailableError: QEMU cannot save it, or the stream is not understood.
    """
    try:
        return {state.index: state for state in decode_device_state(read_device_state())}
    except FormatError as error:
        raise UnavailableError(f"QEMU's device state is not understood: {error}") from error


def _states_or_reason() -> _States:
    try:
        return read_cpu_states()
    except UnavailableError as error:
        return note(error)


def _read_without_touching(
    cpus: Iterable[Cpu], from_stub: Sequence[MsrSpec], rest: Sequence[MsrSpec], states: _States | None
) -> dict[int, dict[str, Value]]:
    """`from_stub` by the stub's registers, `rest` by the device state, if the stub agrees with it."""
    wanted = {spec.stub for spec in from_stub} | ({} if states is None else _CROSS_CHECKED).keys()
    found: dict[int, dict[str, Value]] = {}
    selected = selected_cpu()
    with cpus_in_turn() as select:
        # The selected one last, when it is like the others: nothing needs to be known of its frames then.
        for cpu in sorted(cpus, key=lambda cpu: cpu == selected):
            select(cpu)
            registers = read_registers(cpu, wanted)
            found[cpu.index] = {spec.name: registers[spec.stub] for spec in from_stub}
            if states is not None:
                found[cpu.index] |= _by_state(rest, _checked(cpu, states, registers))
    return found


def _checked(cpu: Cpu, states: _States, registers: Mapping[str, Value]) -> CpuState | Unavailable:
    """The state of `cpu`, if the stub's `registers` agree with it in everything that both have."""
    if isinstance(states, Unavailable):
        return states
    state = states.get(cpu.index)
    if state is None:
        return Unavailable(f"QEMU's device state has no CPU {cpu.index}")
    for register, name in _CROSS_CHECKED.items():
        stub, saved = registers[register], state.msrs.get(name, state.registers.get(name))
        if isinstance(stub, Unavailable):
            return Unavailable(f"QEMU's device state cannot be checked against the GDB stub: {stub.reason}")
        if stub.value != saved:
            return Unavailable(
                f"QEMU's device state contradicts the GDB stub: {name} of CPU {cpu.index} "
                f"is {saved:#x} there and {stub.value:#x} here; `--via rdmsr` asks the CPU itself"
            )
    return state


def _by_stub(cpu: Cpu, specs: Sequence[MsrSpec]) -> dict[str, Value]:
    registers = read_registers(cpu, {spec.stub for spec in specs if spec.stub})
    missing = Unavailable("QEMU's GDB stub does not have it")
    return {spec.name: registers[spec.stub] if spec.stub else missing for spec in specs}


def _by_state(specs: Sequence[MsrSpec], state: CpuState | Unavailable) -> dict[str, Value]:
    if isinstance(state, Unavailable):
        return {spec.name: state for spec in specs}
    values: dict[str, Value] = {}
    for spec in specs:
        value = state.msrs.get(spec.name)
        missing = Unavailable("not in QEMU's device state: `exo-msr read` executes RDMSR for it")
        values[spec.name] = missing if value is None else Reading(value, "qmp")
    return values


def _by_rdmsr(cpu: Cpu, specs: Sequence[MsrSpec]) -> dict[str, Value]:
    from exogdb.target.msr.rdmsr import read_msrs_in_guest

    try:
        values = read_msrs_in_guest(cpu, [spec.number for spec in specs])
    except TargetLostError:
        raise
    except UnavailableError as error:
        return {spec.name: Unavailable(error.reason) for spec in specs}
    return {spec.name: values[spec.number] for spec in specs}


def _instead_of_state(cpu: Cpu, specs: Sequence[MsrSpec], no_state: Unavailable) -> dict[str, Value]:
    """RDMSR for what the device state would have had; both reasons where that is refused too."""
    values = _by_rdmsr(cpu, specs)
    return {
        name: Unavailable(f"{no_state.reason}; {value.reason}") if isinstance(value, Unavailable) else value
        for name, value in values.items()
    }
