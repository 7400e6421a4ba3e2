"""exogdb/launch/progress.py: every line that was printed before the end is shown, once and whole."""

from pathlib import Path

from exogdb.launch.deadline import wait_until
from exogdb.launch.progress import HINT, SerialFollower, announce_boot


def test_lines_are_shown_as_they_become_whole(tmp_path: Path) -> None:
    path = tmp_path / "serial.log"
    path.touch()
    seen: list[str] = []
    with path.open("wb", buffering=0) as serial, SerialFollower(path, seen.append, tmp_path / "booted"):
        serial.write(b"one\r\ntw")
        wait_until(lambda: seen == ["one"], 5, "the first line")
        serial.write(b"o\nthree")
        wait_until(lambda: len(seen) == 2, 5, "the second line")
    assert seen == ["one", "two"]


def test_a_guest_that_makes_no_call_is_told_of_once(tmp_path: Path) -> None:
    path = tmp_path / "serial.log"
    path.touch()
    hints: list[str] = []
    with SerialFollower(path, print, tmp_path / "booted", hints.append, 0.0) as follower:
        wait_until(lambda: bool(hints), 5, "the hint")
    assert hints == [HINT]
    assert not follower.has_booted


def test_whoever_announces_the_boot_goes_on_after_the_last_line_was_shown(tmp_path: Path) -> None:
    path = tmp_path / "serial.log"
    path.write_bytes(b"booting\nbooted\n")
    seen: list[str] = []
    with SerialFollower(path, seen.append, tmp_path / "booted"):
        announce_boot(tmp_path / "booted")
        assert seen == ["booting", "booted"]
