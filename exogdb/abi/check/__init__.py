"""The doctor: rules about a kernel's system-call path, and what they find. Pure; one file for each theme."""

from exogdb.abi.check.cpus import CPU_RULES
from exogdb.abi.check.descriptors import DESCRIPTOR_RULES
from exogdb.abi.check.entry import ENTRY_RULES
from exogdb.abi.check.gates import GATE_RULES
from exogdb.abi.check.isolation import ISOLATION_RULES
from exogdb.abi.check.kernel_pages import KERNEL_PAGE_RULES
from exogdb.abi.check.memory import MEMORY_RULES
from exogdb.abi.check.msrs import MSR_RULES
from exogdb.abi.check.rule import Rule
from exogdb.abi.check.signature import SIGNATURE_RULES
from exogdb.abi.check.stacks import STACK_RULES
from exogdb.abi.check.stub import STUB_RULES
from exogdb.abi.check.sysret import SYSRET_RULES

__all__ = ["RULES", "find_rule"]

RULES: tuple[Rule, ...] = tuple(
    sorted(
        (
            *MSR_RULES,
            *ENTRY_RULES,
            *DESCRIPTOR_RULES,
            *GATE_RULES,
            *ISOLATION_RULES,
            *STUB_RULES,
            *SYSRET_RULES,
            *SIGNATURE_RULES,
            *STACK_RULES,
            *MEMORY_RULES,
            *KERNEL_PAGE_RULES,
            *CPU_RULES,
        ),
        key=lambda rule: rule.id,
    )
)


def find_rule(name: str) -> Rule | None:
    """The rule with that ID, in any case.

    >>> find_rule("exo001").title
    'SYSCALL is enabled'
    """
    return next((rule for rule in RULES if rule.id == name.upper()), None)
