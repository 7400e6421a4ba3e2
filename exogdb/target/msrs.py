"""MSRs of a CPU without touching it: from the GDB stub's registers, else from QEMU's device state.

QEMU's stub knows EFER and the three bases only. The rest comes from the state that QEMU would migrate, read by
one QMP round trip for all CPUs. Both are asked for EFER and KERNEL_GS_BASE on every read: if they disagree, the
device state is not that of the guest in front of us and is refused.
"""

from collections.abc import Iterable, Mapping

from exogdb.errors import FormatError, MonitorError, UnavailableError
from exogdb.reading import Reading, Unavailable, Value
from exogdb.target.cpus import Cpu
from exogdb.target.qmp import read_device_state
from exogdb.target.registers import read_register, register_value
from exogdb.target.vmstate import decode_device_state
from exogdb.target.vmstate_x86 import CpuState
from exogdb.x86.msr import MsrSpec, parse_msr

__all__ = ["read_cpu_states", "read_msr", "read_msrs"]

# GDB register and MSR that both sources have.
_CROSS_CHECKED = (("efer", "IA32_EFER"), ("k_gs_base", "IA32_KERNEL_GS_BASE"))


def read_msrs(cpus: Iterable[Cpu], specs: Iterable[MsrSpec]) -> dict[int, dict[str, Value]]:
    """CPU index to MSR name to value. The guest must be stopped; nothing in it changes.

    QMP is asked once, and only if a wanted MSR is not among the stub's registers.
    """
    cpus, specs = list(cpus), list(specs)
    states = _states_or_reason(cpus) if any(not spec.stub for spec in specs) else {}
    return {cpu.index: {spec.name: _value(cpu, spec, states) for spec in specs} for cpu in cpus}


def read_msr(cpu: Cpu, name: str) -> int:
    """The value of one MSR by any of its names, for callers that cannot go on without it.

    :raise UnavailableError: no source has it.
    """
    spec = parse_msr(name)
    value = read_msrs([cpu], [spec])[cpu.index][spec.name]
    if isinstance(value, Unavailable):
        raise UnavailableError(f"{spec.name} of CPU {cpu.index} is unavailable ({value.reason})")
    return value.value


def read_cpu_states(cpus: Iterable[Cpu]) -> Mapping[int, CpuState]:
    """QEMU's device state of `cpus` by CPU index, checked against the stub. Nothing in the guest changes.

    :raise MonitorError: no QMP monitor can be had.
    :raise UnavailableError: the stream is not understood, or it contradicts the stub.
    """
    try:
        states = {state.index: state for state in decode_device_state(read_device_state())}
    except FormatError as error:
        raise UnavailableError(f"QEMU's device state is not understood: {error}") from error
    for cpu in cpus:
        _check_against_stub(cpu, states.get(cpu.index))
    return states


def _check_against_stub(cpu: Cpu, state: CpuState | None) -> None:
    if state is None:
        raise UnavailableError(f"QEMU's device state has no CPU {cpu.index}")
    for register, msr in _CROSS_CHECKED:
        stub, saved = read_register(cpu, register), state.msrs[msr]
        if stub != saved:
            raise UnavailableError(
                f"QEMU's device state contradicts the GDB stub: {msr} of CPU {cpu.index} "
                f"is {saved:#x} there and {stub:#x} here"
            )


def _states_or_reason(cpus: list[Cpu]) -> Mapping[int, CpuState] | Unavailable:
    try:
        return read_cpu_states(cpus)
    except (MonitorError, UnavailableError) as error:
        return Unavailable(error.reason)


def _value(cpu: Cpu, spec: MsrSpec, states: Mapping[int, CpuState] | Unavailable) -> Value:
    if spec.stub:
        return register_value(cpu, spec.stub)
    if isinstance(states, Unavailable):
        return states
    value = states[cpu.index].msrs.get(spec.name)
    if value is None:
        return Unavailable(f"QEMU's device state does not hold {spec.name}")
    return Reading(value, "qmp")
