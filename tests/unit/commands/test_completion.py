"""What a word can become, by argparse's own reading of the words in front."""

from argparse import ArgumentParser
from pathlib import Path

import pytest

from exogdb.commands.completion import complete_path, complete_word

COMPLETERS = {
    "CALLS": lambda _token: ["getpid", "ipc_send", "ipc_recv"],
    "--cpu": lambda _token: ["0", "1"],
    "FILE": lambda _token: ["boot.trace"],
}


def split(text: str) -> tuple[list[str], str]:
    *words, token = text.split(" ")
    return words, token


@pytest.fixture
def parser() -> ArgumentParser:
    parser = ArgumentParser(add_help=False)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("calls", nargs="?", metavar="CALLS")
    parser.add_argument("--cpu", type=int)
    parser.add_argument("--count", type=int)
    parser.add_argument("--engine", choices=["auto", "log", "stops"])
    parser.add_argument("--json", action="store_true")
    return parser


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["boot.trace"]),
        ("boot.trace ", ["getpid", "ipc_recv", "ipc_send"]),
        ("boot.trace ipc_", ["ipc_recv", "ipc_send"]),
        ("boot.trace getpid ", []),
        ("--cpu 1 --json boot.trace g", ["getpid"]),
        ("--cpu ", ["0", "1"]),
        ("boot.trace --cpu 1", ["1"]),
        ("--cpu=", ["--cpu=0", "--cpu=1"]),
        ("--engine s", ["stops"]),
        ("--engine=l", ["--engine=log"]),
        ("--count ", []),
        ("--count -", []),
        ("--json ", ["boot.trace"]),
        ("--c", ["--count", "--cpu"]),
        ("-", ["--count", "--cpu", "--engine", "--json"]),
        ("--bogus ", ["boot.trace"]),
    ],
)
def test_it_follows_the_words_in_front(parser: ArgumentParser, text: str, words: list[str]) -> None:
    assert complete_word(parser, COMPLETERS, *split(text)) == words


def test_the_last_of_many_arguments_is_offered_again() -> None:
    parser = ArgumentParser(add_help=False)
    parser.add_argument("calls", nargs="+", metavar="CALLS")
    assert complete_word(parser, COMPLETERS, ["getpid", "ipc_send"], "ipc_r") == ["ipc_recv"]


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "traces" / "old").mkdir(parents=True)
    (tmp_path / "traces" / "old" / "boot.trace").touch()
    (tmp_path / "text").touch()
    (tmp_path / ".hidden").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert complete_path("t") == ["text", "traces"]
    assert complete_path("tr") == ["traces/old/boot.trace"]
    assert complete_path(".h") == [".hidden"]
    assert complete_path("") == ["text", "traces"]
    assert complete_path(f"{tmp_path}/te") == [f"{tmp_path}/text"]
    assert complete_path("~/te") == ["~/text"]
    assert complete_path("nowhere/t") == []
