"""IA32_EFER: long mode, SYSCALL and no-execute. Source: Intel SDM Vol. 3A, Extended Feature Enable Register;
AMD APM Vol. 2, Extended Feature Enable Register.
"""

from exogdb.x86.flags import Flag, decode_flags

__all__ = ["EFER", "check_efer", "decode_efer"]

_SDM = "SDM Vol. 3A, Extended Feature Enable Register"
_APM = "APM Vol. 2, Extended Feature Enable Register"

EFER: tuple[Flag, ...] = (
    Flag("SCE", 0, "SYSCALL and SYSRET enabled; without it they raise #UD", _SDM),
    Flag("LME", 8, "long mode is entered when paging is switched on", _SDM),
    Flag("LMA", 10, "long mode is active (set by the CPU)", _SDM),
    Flag("NXE", 11, "bit 63 of a page-table entry forbids execution; without it that bit is reserved", _SDM),
    Flag("SVME", 12, "AMD virtualization instructions enabled", _APM),
    Flag("LMSLE", 13, "segment limits are checked in 64-bit mode (AMD)", _APM),
    Flag("FFXSR", 14, "FXSAVE and FXRSTOR in 64-bit mode at CPL 0 leave out the XMM registers (AMD)", _APM),
    Flag("TCE", 15, "INVLPG keeps upper-level translations that do not lead to its page (AMD)", _APM),
    Flag("MCOMMIT", 17, "MCOMMIT enabled (AMD)", _APM),
    Flag("INTWB", 18, "WBINVD and WBNOINVD can be interrupted (AMD)", _APM),
    Flag("UAIE", 20, "the upper bits of data addresses are ignored (AMD)", _APM),
    Flag("AIBRSE", 21, "automatic IBRS (AMD)", _APM),
)


def decode_efer(value: int) -> tuple[str, ...]:
    """The bits set in `value` by name, unknown ones as hex.

    >>> decode_efer(0xd01)
    ('SCE', 'LME', 'LMA', 'NXE')
    """
    return decode_flags(value, EFER)


def check_efer(value: int) -> tuple[str, ...]:
    """What keeps SYSCALL or page protection from working, one sentence each."""
    names = decode_efer(value)
    findings = []
    if "SCE" not in names:
        findings.append("SCE is clear: SYSCALL raises #UD")
    if "LMA" not in names:
        findings.append("LMA is clear: the CPU is not in long mode, LSTAR and FMASK are not used")
    if "LMA" in names and "NXE" not in names:
        findings.append("NXE is clear: every readable page is executable, and bit 63 of a page-table entry faults")
    return tuple(findings)
