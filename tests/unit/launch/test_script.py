"""exogdb/launch/script.py: what GDB is told to do, in which order."""

from pathlib import Path

from exogdb.launch.script import Script, render_script, show

BOOTED = Path("/run/x/booted")


def lines(script: Script) -> list[str]:
    return render_script(script).splitlines()


START = "maintenance exogdb-start"


def test_the_guest_is_taken_to_its_first_system_call_before_the_commands() -> None:
    text = lines(Script("/run/x/gdb.sock", 0xFFFFFFFF80100000, BOOTED, commands=("exo-gs",)))
    order = [f'{START} ["/run/x/gdb.sock", {0xFFFFFFFF80100000}, [], "/run/x/booted"]', "frame", "exo-gs"]
    assert [line for line in text if line in order] == order


def test_a_kernel_without_a_known_entry() -> None:
    assert f'{START} ["s", null, [], "/run/x/booted"]' in lines(Script("s", None, BOOTED))


def test_programs_are_passed_on() -> None:
    text = lines(Script("s", None, BOOTED, programs=(Path("/a b/p.elf"),)))
    assert f'{START} ["s", null, ["/a b/p.elf"], "/run/x/booted"]' in text


def test_the_last_command_is_last() -> None:
    assert lines(Script("s", None, BOOTED, last="detach"))[-1] == "detach"
    assert lines(Script("s", None, BOOTED))[-1] == "set pagination on"


def test_a_shown_command_keeps_its_backslashes_and_leading_blanks() -> None:
    assert show(r"echo a\n") == "echo (gdb) echo a\\\\n\\n\necho a\\n\n"
    farewell = render_script(Script("s", None, BOOTED, farewell="Try:\n  quit"))
    assert "echo Try:\\n\necho \\  quit\\n\n" in farewell
