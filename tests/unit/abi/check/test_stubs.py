"""The rules about code on assembled stubs: a sound one breaks none, each mistake trips the rule made for it."""

from dataclasses import replace

import pytest

from exogdb.abi.check import RULES
from exogdb.abi.check.facts import Facts
from exogdb.abi.check.rule import run_rules
from exogdb.abi.stub.entry import find_entry_path
from tests.unit.abi.check.sound import sound_facts, with_msr
from tests.unit.abi.stub_fixture import STUBS, TEXT, Stub, assemble

SOUND = (STUBS / "sound.s").read_text()

# What is wrong: the lines that are replaced, by what, and every rule that must notice.
MISTAKES: dict[str, tuple[str, str, str]] = {
    "no swapgs on entry": ("    swapgs\n    mov gs:[8], rsp", "    mov gs:[8], rsp", "EXO030"),
    "no swapgs before SYSRET": ("    swapgs\n    sysretq", "    sysretq", "EXO030"),
    "no swapgs before IRETQ": ("    swapgs\n    iretq", "    iretq", "EXO030"),
    "GS used before swapgs": ("    swapgs\n    mov gs:[8], rsp", "    mov gs:[8], rsp\n    swapgs", "EXO030"),
    "push before the switch": ("    mov gs:[8], rsp", "    push rax\n    pop rax\n    mov gs:[8], rsp", "EXO031"),
    "red zone of the user read": ("    mov gs:[8], rsp", "    mov rbp, [rsp - 8]\n    mov gs:[8], rsp", "EXO031"),
    "pop after the user's rsp is back": (
        "    pop r11\n    pop rcx",
        "    pop r11\n    pop rcx\n    mov rsp, gs:[8]\n    push rcx\n    pop rcx\n    mov rsp, gs:[0]",
        "EXO031",
    ),
    "the user's stack, aligned": ("    mov rsp, gs:[0]\n    cld\n", "    and rsp, -16\n    cld\n", "EXO031"),
    "misaligned call": ("    sub rsp, 8\n    push r9", "    push r9", "EXO032 EXO036"),
    "number not moved": ("    mov rdi, rax\n", "", "EXO033"),
    "moved in an order that loses one": (
        "    mov rdx, rsi\n    mov rsi, rdi",
        "    mov rsi, rdi\n    mov rdx, rsi",
        "EXO033",
    ),
    "rcx not tested": ("    jnz by_iret\n", "", "EXO034"),
    "something else tested": ("    mov rdx, rcx\n", "    mov rdx, r11\n", "EXO034"),
    "the lowest bits tested": ("    shr rdx, 47\n", "    and rdx, 7\n", "EXO034"),
    "tested, and SYSRET either way": ("    jnz by_iret\n", "    jnz 1f\n1:\n", "EXO034"),
    "SYSRET without a test for a bad number": (
        "    cld\n",
        "    cld\n    cmp rax, 500\n    jb 1f\n    mov rsp, gs:[8]\n    swapgs\n    sysretq\n1:\n",
        "EXO034",
    ),
    "a second SYSRET without a test": (
        "    mov rdx, rcx\n",
        "    test eax, eax\n    jz cleared\n    mov rdx, rcx\n",
        "EXO034",
    ),
    "rdi not cleared before SYSRET": (
        "    xor edi, edi\n    xor esi, esi\n    xor edx, edx\n    xor r8d, r8d\n    xor r9d, r9d\n"
        "    xor r10d, r10d\n    mov rsp",
        "    xor esi, esi\n    xor edx, edx\n    xor r8d, r8d\n    xor r9d, r9d\n    xor r10d, r10d\n    mov rsp",
        "EXO035",
    ),
    "pops exchanged": ("    pop rbx\n    pop rbp", "    pop rbp\n    pop rbx", "EXO036"),
    "rbx saved as a constant": ("    push rbx\n", "    push 0\n", "EXO036"),
    "rsp from the kernel stack's slot": (
        "    mov rsp, gs:[8]\n    swapgs",
        "    mov rsp, gs:[0]\n    swapgs",
        "EXO036",
    ),
    "rsp from a slot that is used for rbx": (
        "    push rbx\n    push r12\n",
        "    push rbx\n    mov gs:[8], rbx\n    push r12\n",
        "EXO036",
    ),
    "no cli": ("    cli\n", "", "EXO037"),
    "sti again on the way out": ("    mov rdx, rcx\n", "    sti\n    mov rdx, rcx\n", "EXO037"),
    "sti before the switch": (
        "    mov gs:[8], rsp\n    mov rsp",
        "    sti\n    mov gs:[8], rsp\n    mov rsp",
        "EXO037",
    ),
}


def facts_of(stub: Stub) -> Facts:
    """The sound machine with `stub` behind its LSTAR."""
    facts = sound_facts()
    path = find_entry_path(stub.memory, TEXT)
    return replace(facts, entries=(replace(facts.entries[0], path=path),))


# The same for flags that SYSCALL leaves, which the stub has to clear: FMASK then has IF alone, and SMAP is on.
LEFT_FLAGS: dict[str, tuple[str, str, str]] = {
    "no cld": ("    cld\n", "", "EXO012"),
    "cld on one path only": ("    cld\n", "    test eax, eax\n    js over\n    cld\nover:\n", "EXO012"),
    "cld too late": ("    call dispatcher\n    cli", "    call dispatcher\n    cld\n    cli", "EXO012"),
}


IRETQ = (STUBS / "iretq.s").read_text()


def findings(facts: Facts) -> list[str]:
    return [each.rule.id for each in run_rules(RULES, facts).results if each.findings]


def test_the_sound_stub_breaks_no_rule() -> None:
    report = run_rules(RULES, facts_of(assemble(SOUND)))
    assert [each.rule.id for each in report.results if each.status != "sound"] == []


def test_flags_that_the_stub_clears_itself_are_clear() -> None:
    facts = with_msr(facts_of(assemble(SOUND)), "IA32_FMASK", 0x200)
    assert findings(facts) == ["EXO011", "EXO013", "EXO014"]
    clears_all = SOUND.replace("    cld\n", "    push 2\n    popfq\n")
    assert findings(with_msr(facts_of(assemble(clears_all)), "IA32_FMASK", 0x200)) == ["EXO011"]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_code_trips_its_rule_and_no_other(mistake: str) -> None:
    old, new, expected = MISTAKES[mistake]
    assert SOUND.count(old) == 1
    assert findings(facts_of(assemble(SOUND.replace(old, new)))) == expected.split()


@pytest.mark.parametrize("mistake", LEFT_FLAGS)
def test_a_flag_is_clear_only_if_it_is_on_every_path(mistake: str) -> None:
    old, new, expected = LEFT_FLAGS[mistake]
    source = SOUND.replace("    cld\n", "") if "late" in mistake else SOUND
    assert source.count(old) == 1
    facts = with_msr(facts_of(assemble(source.replace(old, new))), "IA32_FMASK", 0x257BD5)
    assert findings(facts) == expected.split()


def test_stars_sysret_base_matters_only_where_a_sysret_may_be() -> None:
    unfollowed = IRETQ.replace(
        "    mov [rsp+0x30], rax", "    test eax, eax\n    jns 1f\n    jmp rax\n1:  mov [rsp+0x30], rax"
    )
    for source, expected in ((IRETQ, []), (SOUND, ["EXO021", "EXO022"]), (unfollowed, ["EXO021", "EXO022"])):
        sound = facts_of(assemble(source))
        found = findings(with_msr(sound, "IA32_STAR", 0x0000000800000000))
        assert [rule for rule in found if rule not in findings(sound)] == expected


# The same for the stub whose only exit is an IRETQ.
IRETQ_MISTAKES: dict[str, tuple[tuple[str, str], ...]] = {
    "pops exchanged": (
        ("    mov rdi, rsp\n", "    push rbx\n    push rbp\n    mov rdi, rsp\n"),
        ("    mov [rsp+0x30], rax\n", "    mov [rsp+0x40], rax\n    pop rbx\n    pop rbp\n"),
    ),
    "rip and rflags exchanged": (
        ("    push r11\n    push 0x2b\n    push rcx", "    push rcx\n    push 0x2b\n    push r11"),
    ),
}


@pytest.mark.parametrize("mistake", IRETQ_MISTAKES)
def test_iretq_gives_back_what_was_saved(mistake: str) -> None:
    source = IRETQ
    for old, new in IRETQ_MISTAKES[mistake]:
        assert source.count(old) == 1
        source = source.replace(old, new)
    assert set(findings(facts_of(assemble(source)))) - set(findings(facts_of(assemble(IRETQ)))) == {"EXO036"}


def test_each_way_to_sysret_may_have_a_test_of_its_own() -> None:
    twice = "    test eax, eax\n    jz 1f\n    mov rdx, rcx\n    shr rdx, 46\n    jnz by_iret\n    jmp cleared\n1:"
    source = SOUND.replace("    mov rdx, rcx\n", f"{twice}  mov rdx, rcx\n")
    assert findings(facts_of(assemble(source))) == []


def test_interrupts_are_off_when_a_small_function_turned_them_off() -> None:
    source = SOUND.replace("    cli\n", "    call off\n")
    assert findings(facts_of(assemble(f"{source}off: cli\n    ret\n"))) == []
    assert findings(facts_of(assemble(f"{source}off: nop\n    ret\n"))) == ["EXO037"]
