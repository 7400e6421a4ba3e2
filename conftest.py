"""Where pytest looks for examples: in files that have any, one in six. It would import all the others to see."""

from collections.abc import Generator
from pathlib import Path

import pytest
from _pytest.doctest import DoctestModule


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Tests are found in every file that pytest finds them in."""
    found = yield
    has_examples = file_path.suffix != ".py" or ">>>" in file_path.read_text()
    return [each for each in found if has_examples or not isinstance(each, DoctestModule)]
