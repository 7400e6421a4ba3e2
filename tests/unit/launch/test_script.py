"""exogdb/launch/script.py: what GDB is told to do, in which order."""

from pathlib import Path

from exogdb.launch.script import Script, render_script, show

BOOTED = Path("/run/x/booted")


def lines(script: Script) -> list[str]:
    return render_script(script).splitlines()


def test_the_guest_is_taken_to_its_first_system_call_before_the_commands() -> None:
    text = lines(Script("/run/x/gdb.sock", 0xFFFFFFFF80100000, BOOTED, commands=("exo-gs",)))
    order = [
        'python gdb.execute("target remote /run/x/gdb.sock", to_string=True)',
        'python gdb.execute("thbreak *0xffffffff80100000", to_string=True)',
        'python gdb.execute("continue", to_string=True)',
        "python from pathlib import Path; from exogdb.launch.progress import announce_boot; "
        'announce_boot(Path("/run/x/booted"))',
        "exo-gs",
    ]
    assert [line for line in text if line in order] == order


def test_without_an_entry_the_guest_is_left_where_attaching_stopped_it() -> None:
    text = render_script(Script("/run/x/gdb.sock", None, BOOTED))
    assert "continue" not in text
    assert "first system call" not in text


def test_a_program_whose_path_has_a_blank_is_one_argument() -> None:
    text = lines(Script("s", None, BOOTED, programs=(Path("/a b/p.elf"),)))
    assert r'python gdb.execute("add-symbol-file \"/a b/p.elf\"", to_string=True)' in text


def test_the_last_command_is_silent_and_last() -> None:
    assert lines(Script("s", None, BOOTED, last="detach"))[-1] == 'python gdb.execute("detach", to_string=True)'
    assert lines(Script("s", None, BOOTED))[-1] == "set pagination on"


def test_a_shown_command_keeps_its_backslashes_and_leading_blanks() -> None:
    assert show(r"echo a\n") == "echo (gdb) echo a\\\\n\\n\necho a\\n\n"
    farewell = render_script(Script("s", None, BOOTED, farewell="Try:\n  quit"))
    assert "echo Try:\\n\necho \\  quit\\n\n" in farewell
