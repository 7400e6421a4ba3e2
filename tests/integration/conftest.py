"""Fixtures for tests that need a guest.

`guest(...)` opens one with the options of `tests.harness.session.open_guest` and closes it after the test.
When the test fails, its serial log and the whole conversation with GDB are part of the report.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.harness.kernel import Kernel, build_kernel
from tests.harness.session import Guest, open_guest

OpenGuest = Callable[..., Guest]
GUESTS = pytest.StashKey[list[Guest]]()


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    """The plain kernel, built."""
    return build_kernel()


@pytest.fixture
def guest(request: pytest.FixtureRequest) -> Iterator[OpenGuest]:
    """`guest(append="run=demo", smp=1, ...) -> Guest`; as many as the test wants."""
    opened = request.node.stash.setdefault(GUESTS, [])
    with ExitStack() as stack:

        def open_one(*arguments: Any, **options: Any) -> Guest:
            one = stack.enter_context(open_guest(*arguments, **options))
            opened.append(one)
            return one

        yield open_one


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put what the guests and GDB said into the report of a failed test."""
    report: pytest.TestReport = yield
    if call.when == "call" and report.failed:
        report.sections += [("guest", one.report()) for one in item.stash.get(GUESTS, [])]
    return report
