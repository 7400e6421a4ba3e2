"""What the documentation shows is what the commands print."""

from pathlib import Path

import pytest

from tests.harness.kernel import ROOT
from tests.harness.transcript import documents, for_each_block, retake


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_transcripts_are_current(path: Path) -> None:
    text = path.read_text()
    for written, taken in zip(for_each_block(text), for_each_block(retake(text)), strict=True):
        assert written == taken, "`make transcripts` takes them anew"
