"""The grammar chooses what strace's would, and says what is wrong with a mistake."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exogdb.abi.choice import complete_choice, parse_choice, spell_number
from exogdb.abi.numbers import NumberTable, parse_numbers
from exogdb.errors import UsageError

SOURCE = """
// Process
pub const SYS_EXIT: u64 = 0;
pub const SYS_GETPID: u64 = 4;

// IPC (Exo-OS specific)
pub const SYS_IPC_CREATE: u64 = 100;
pub const SYS_IPC_SEND: u64 = 101;
pub const SYS_IPC_RECV: u64 = 102;

// Files
pub const SYS_READ: u64 = 302;
pub const SYS_WRITE: u64 = 303;
"""
EVERY = {0, 4, 100, 101, 102, 302, 303}
GROUPS = {
    "slow": "read,102", "slower": "%slow,exit", "loop": "exit,%loop", "typo": "opne", "process": "%process 302"
}  # fmt: skip
TABLE = replace(parse_numbers(SOURCE, "syscall.rs"), extra_groups=GROUPS)


@pytest.mark.parametrize(
    ("text", "numbers", "unknown"),
    [
        ("101", {101}, False),
        ("0x65", {101}, False),
        ("ipc_send", {101}, False),
        ("SYS_IPC_SEND", {101}, False),
        ("sys_ipc_send", {101}, False),
        ("100-101", {100, 101}, False),
        ("101-9999", {101, 102, 302, 303}, False),
        ("%ipc", {100, 101, 102}, False),
        ("%file", {302, 303}, False),
        ("%files", {302, 303}, False),
        ("%slower", {0, 102, 302}, False),
        ("/^ipc_/", {100, 101, 102}, False),
        ("/ipc_(send|recv){1,2}$/,4", {4, 101, 102}, False),
        ("all", EVERY, True),
        ("unknown", set(), True),
        ("!%ipc,0", EVERY - {0, 100, 101, 102}, True),
        ("!unknown", EVERY, False),
        ("%ipc,!ipc_recv", {100, 101}, False),
        ("all,!unknown", EVERY, False),
        ("4, 101", {4, 101}, False),
        ("4 101 , 302-303", {4, 101, 302, 303}, False),
        ("! exit, 4", EVERY - {0, 4}, True),
        ("000101,0X4", {4, 101}, False),
        ("ALL", EVERY, True),
        ("!Unknown", EVERY, False),
        ("/IPC_S|READ/", {101, 302}, False),
        (r"/ipc\/x|read/", {302}, False),
        ("/re[ ad]d, x|exit/,101", {0, 101}, False),
        ("/[[a]d/", {302}, False),  # Python warns of it
        ("%Slow", {102, 302}, False),
        ("%process", {0, 4, 302}, False),  # a heading, extended by the profile
        ("101,100-102,%ipc", {100, 101, 102}, False),
    ],
)
def test_choices(text: str, numbers: set[int], unknown: bool) -> None:
    choice = parse_choice(text, TABLE)
    assert set(choice.numbers) == numbers
    assert choice.unknown is unknown
    assert all(number in choice for number in numbers)
    assert all(number not in choice for number in EVERY - numbers)
    assert (9999 in choice) is unknown
    assert parse_choice(choice.text, TABLE) == choice


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ipc_sned", "no system call is called 'ipc_sned' in syscall.rs; did you mean ipc_send"),
        ("999", "no system call has number 999 in syscall.rs; `unknown` chooses"),
        ("5-99", "no system call has a number from 5 to 99"),
        ("103-100", "the range 103-100 is empty"),
        ("%net", "there is no group %net; the groups are %process, %ipc, %file, %slow, %slower, %loop, %typo"),
        ("%typo", "the group %typo of the profile: no system call is called 'opne' in syscall.rs"),
        ("%loop", "the group %loop of the profile: %loop contains itself"),
        ("/(/", "is not a regular expression"),
        ("/zzz/", "no system call's name matches /zzz/"),
        ("101,", "is not a list of system calls"),
        ("", "is not a list of system calls"),
        (" ", "is not a list of system calls"),
        (",,", "is not a list of system calls"),
        ("!", "'!' is not a list of system calls"),
        ("4,!,101", "is not a list of system calls"),
        ("!!exit", "is not a list of system calls"),
        ("!all", "chooses no system call"),
        ("100-", "'100-' is no number and no range"),
        ("-5", "'-5' is no number and no range"),
        ("0x", "'0x' is no number and no range"),
        ("9" * 5000, "does not fit into the 64 bits"),
        ("/a{99999999999999999999}/", "is not a regular expression: the repetition number is too large"),
        (f"/{'(' * 2000}{')' * 2000}/", "is not a regular expression: maximum recursion"),
        ("/[/", "is not a regular expression: unterminated character set"),
        ("%ipc,!%ipc", "chooses no system call"),
        ("18446744073709551616", "does not fit into the 64 bits"),
        ("/a/b", "is not a system call: a regular expression is written /PATTERN/"),
    ],
)
def test_mistakes_get_a_sentence(text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_choice(text, TABLE)
    assert message in str(raised.value)


def test_without_a_table_numbers_stand_for_themselves() -> None:
    choice = parse_choice("39,100-102", NumberTable())
    assert choice.numbers == {39, 100, 101, 102}
    others = parse_choice("!39", NumberTable())
    assert (39 in others, 40 in others) == (False, True)
    with pytest.raises(UsageError, match="0-5000 is too long for a kernel without a number table"):
        parse_choice("0-5000", NumberTable())
    with pytest.raises(UsageError, match="use numbers or `set exo syscalls FILE`"):
        parse_choice("getpid", NumberTable())


def test_the_text_is_the_list_with_commas_alone() -> None:
    assert parse_choice(" ipc_send, !  read /a, b|exit/", TABLE).text == "ipc_send,!read,/a, b|exit/"


def test_single_is_only_a_choice_of_exactly_one() -> None:
    assert parse_choice("ipc_send,101", TABLE).single == 101
    assert parse_choice("101,unknown", TABLE).single is None
    assert parse_choice("%ipc", TABLE).single is None


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("ipc_", ["ipc_create", "ipc_recv", "ipc_send"]),
        ("%", ["%file", "%ipc", "%loop", "%process", "%slow", "%slower", "%typo"]),
        ("/a,b/,!ge", ["/a,b/,!getpid"]),
        ("/a,ip", []),  # within the expression
        ("exit,!wr", ["exit,!write"]),
        ("SYS_R", ["SYS_READ"]),
        ("un", ["unknown"]),
        ("zzz", []),
    ],
)
def test_completion_continues_the_last_item(token: str, words: list[str]) -> None:
    assert complete_choice(token, TABLE) == words


# As a header for two architectures has it, read as one; and names that mean something else in the grammar.
AMBIGUOUS = parse_numbers(
    "#define SYS_ALL 100\n#define SYS_UNKNOWN 7\n#define __NR_read 101\n#define __NR_read 302\n"
    "#define SYS_101 200\n#define SYS_4_ 201\n#define SYS_X 5\n#define SYS_SYS_X 6\n"
)


def test_a_number_is_spelled_by_its_name_only_if_that_is_the_number_again() -> None:
    spelled = {entry.number: spell_number(entry.number, AMBIGUOUS) for entry in AMBIGUOUS}
    assert spelled == {5: "x", 6: "6", 7: "7", 100: "100", 101: "read", 200: "200", 201: "4_", 302: "302"}
    assert all(parse_choice(word, AMBIGUOUS).single == number for number, word in spelled.items())
    assert spell_number(39, NumberTable()) == "39"


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", ["4_", "all", "read", "unknown", "x"]),
        ("1", []),  # `101` is another number
        ("!", ["!4_", "!all", "!read", "!unknown", "!x"]),
        ("SYS_", ["SYS_101", "SYS_4_", "SYS_ALL", "SYS_SYS_X", "SYS_UNKNOWN", "SYS_X"]),
        ("__NR_", ["__NR_read"]),
    ],
)
def test_completion_offers_no_name_that_means_something_else(token: str, words: list[str]) -> None:
    assert complete_choice(token, AMBIGUOUS) == words


@given(st.sets(st.sampled_from(sorted(EVERY)), min_size=1, max_size=6))
def test_negation_is_the_complement(numbers: set[int]) -> None:
    listed = ",".join(map(str, sorted(numbers)))
    chosen, rest = parse_choice(listed, TABLE), parse_choice(f"!{listed}", TABLE)
    assert chosen.numbers | rest.numbers == EVERY
    assert not chosen.numbers & rest.numbers


@given(st.text(max_size=20))
def test_any_text_is_a_choice_or_a_usage_error(text: str) -> None:
    try:
        choice = parse_choice(text, TABLE)
    except UsageError:
        return
    assert choice.numbers or choice.unknown
