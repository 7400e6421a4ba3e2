"""exogdb/launch/progress.py: every line that was printed before the end is shown, once and whole."""

from pathlib import Path

from exogdb.launch.deadline import wait_until
from exogdb.launch.progress import SerialFollower, announce_boot


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


def test_whoever_announces_the_boot_goes_on_after_the_last_line_was_shown(tmp_path: Path) -> None:
    path = tmp_path / "serial.log"
    path.write_bytes(b"booting\nbooted\n")
    seen: list[str] = []
    with SerialFollower(path, seen.append, tmp_path / "booted"):
        announce_boot(tmp_path / "booted")
        assert seen == ["booting", "booted"]
