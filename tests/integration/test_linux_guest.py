"""MSRs of the distribution's Linux: what exogdb reads without touching it is what RDMSR says inside it."""

from tests.harness.linux import open_linux

SYSCALL_MSRS = range(0xC0000080, 0xC0000085)


def test_the_guest_tells_its_msrs_and_symbols_for_every_cpu() -> None:
    with open_linux(smp=2) as (guest, truth):
        told = {(cpu, number) for cpu, number in truth.msrs if number in SYSCALL_MSRS}
        assert told == {(cpu, number) for cpu in range(2) for number in SYSCALL_MSRS}
        lstar = truth.msrs[0, 0xC0000082]
        assert truth.symbols["entry_SYSCALL_64"] == lstar
        # The stub begins with SWAPGS, behind ENDBR64 in newer kernels; GDB reads it where the guest said it is.
        assert "swapgs" in guest.gdb.run(f"x/2i {lstar:#x}")
