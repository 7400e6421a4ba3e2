"""exogdb/view/trace.py: the lines, letter by letter."""

from exogdb.trace.call import Call, CallState, Parent
from exogdb.trace.notice import Notice, NoticeKind
from exogdb.trace.unit import Unit
from exogdb.view.style import Style
from exogdb.view.trace import TraceLines
from exogdb.x86.word import to_signed


class _Words:
    """Fixed words, so that only the layout is tested."""

    def name(self, number: int | None) -> str:
        return {4: "getpid", 102: "ipc_recv", 0: "exit", 1: "fork"}.get(number or 0, "?")

    def arguments(self, call: Call) -> list[str]:
        return [] if call.number == 4 else ["channel=3", "len=64"]

    def outputs(self, call: Call) -> list[str]:
        return ['buf="hello"'] if call.return_cpu == 1 and call.number == 102 else []

    def result(self, call: Call) -> str:
        return str(to_signed(call.result or 0))

    def program(self, call: Call) -> str:
        return "pong" if call.process == 2 else ""

    def stack(self, call: Call) -> list[str]:
        return ["#0 0x400010 main"] if call.user_rip else []


def _line(kind: NoticeKind, call: Call, *, shows_time: bool = False, colour: bool = False) -> str:
    lines = TraceLines(_Words(), Style(colour=colour), shows_time, origin_ns=1_000)
    return lines.render(Notice(kind, call))


def _call(number: int, state: CallState, result: int | None = None, rip: int | None = None) -> Call:
    return Call(5, 0, 0x1000, 1, number, state=state, result=result, user_rip=rip)


def test_a_whole_call() -> None:
    assert _line(NoticeKind.WHOLE, _call(4, CallState.RETURNED, 7)) == " 0 P1  getpid() = 7"


def test_a_blocked_call_and_its_end_on_another_cpu() -> None:
    call = Call(5, 0, 0x1000, 2, 102)
    assert _line(NoticeKind.UNFINISHED, call) == " 0 P2 pong  ipc_recv(channel=3, len=64) <unfinished ...>"
    call.state, call.result, call.return_cpu = CallState.RETURNED, 5, 1
    assert _line(NoticeKind.RESUMED, call) == ' 1 P2 pong  <... ipc_recv resumed> buf="hello" = 5'


def test_a_call_that_never_returns() -> None:
    line = _line(NoticeKind.WHOLE, _call(0, CallState.NEVER_RETURNED))
    assert line == " 0 P1  exit(channel=3, len=64) = ?"


def test_returns_without_an_entry_say_so() -> None:
    before = Call(0, 1, 0x1000, 3, state=CallState.ENTERED_BEFORE, result=(1 << 64) - 1)
    assert _line(NoticeKind.RESUMED, before) == " 1 P3  <... a call entered before the trace> = -1"
    child = Call(0, 1, 0x1000, 4, 1, state=CallState.STARTED_BY_FORK, result=0)
    assert _line(NoticeKind.RESUMED, child) == " 1 P4  <... fork resumed in the new process> = 0"


def test_a_guess_is_called_a_guess() -> None:
    call = _call(4, CallState.RETURNED, 7)
    call.is_ambiguous = True
    assert "= 7 (guess: " in _line(NoticeKind.WHOLE, call)


def test_a_process_says_whose_child_it_is_before_its_first_line() -> None:
    lines = TraceLines(_Words(), Style(colour=False))
    call = _call(4, CallState.RETURNED, 7)
    call.parent = Parent(3, is_guess=False)
    notice = Notice(NoticeKind.WHOLE, call)
    assert lines.render(notice).splitlines() == [" 0 P1  <new process, child of P3>", " 0 P1  getpid() = 7"]
    assert lines.render(notice) == " 0 P1  getpid() = 7"
    call.process, call.parent = 2, Parent(3, is_guess=True)
    assert "<new process, child of P3 (guess: " in lines.render(notice)


def test_a_cpu_that_cannot_be_told_is_not_zero() -> None:
    call = Call(5, None, 0x1000, 1, 4, state=CallState.RETURNED, result=7)
    assert _line(NoticeKind.WHOLE, call).startswith(" ? P1")


def test_times_are_relative_to_the_start_and_latency_stands_at_the_end() -> None:
    call = _call(4, CallState.RETURNED, 7)
    call.entry_ns, call.exit_ns = 2_000_001_000, 2_000_045_000
    assert _line(NoticeKind.WHOLE, call, shows_time=True) == " 0 P1    2.000000 getpid() = 7 <0.000044>"


def test_instructions_are_no_seconds() -> None:
    call = _call(4, CallState.RETURNED, 7)
    call.entry_ns, call.exit_ns = 1_300, 1_433
    lines = TraceLines(_Words(), Style(colour=False), shows_time=True, origin_ns=1_000, unit=Unit.INSTRUCTIONS)
    assert lines.render(Notice(NoticeKind.WHOLE, call)) == " 0 P1         300 getpid() = 7 <133>"


def test_a_backtrace_follows_its_call() -> None:
    text = _line(NoticeKind.WHOLE, _call(4, CallState.RETURNED, 7, rip=0x400010))
    assert text.splitlines() == [" 0 P1  getpid() = 7", "      #0 0x400010 main"]


def test_an_error_is_painted_only_where_there_is_colour() -> None:
    call = _call(4, CallState.RETURNED, (1 << 64) - 1)
    assert _line(NoticeKind.WHOLE, call) == " 0 P1  getpid() = -1"
    assert "\x1b[1;31m-1\x1b[0m" in _line(NoticeKind.WHOLE, call, colour=True)
