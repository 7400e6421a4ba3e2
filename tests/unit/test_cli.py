"""exogdb/cli.py: what the console script makes of its words, without starting anything."""

from importlib.metadata import version
from pathlib import Path

import pytest

from exogdb.cli import main


def test_a_missing_kernel_is_one_sentence_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path / "none.elf")]) == 1
    assert capsys.readouterr().err == (
        f"exogdb: there is no file {tmp_path}/none.elf; `make kernel` builds build/kernel/exo-os.elf\n"
    )


@pytest.mark.parametrize("subcommand", ["run", "demo"])
def test_every_subcommand_has_help(subcommand: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([subcommand, "--help"])
    assert "KERNEL" in capsys.readouterr().out


def test_an_unknown_subcommand_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["dance"])
    assert "invalid choice: 'dance'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "none.trace: No such file or directory; "), (b"\xff\xfe", "none.trace is no trace; ")],
)
def test_a_report_of_what_is_no_trace_is_one_sentence(
    content: bytes | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "none.trace"
    if content is not None:
        file.write_bytes(content)
    assert main(["report", str(file)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert sentence in said
    assert "`exo-syscall record FILE`" in said


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"exogdb {version('exogdb')}\n"


def test_a_machine_without_a_cpu_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["run", "kernel.elf", "--smp", "0"])
    assert "argument --smp: 0 is less than 1" in capsys.readouterr().err
