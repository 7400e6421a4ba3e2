"""For every test: Ctrl-C as it is for whoever has a terminal.

What a script starts with `&` ignores it, and so would each GDB and launcher that is started here.
"""

import gc
import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What was imported and collected stays: looking through it for garbage again and again took a tenth."""
    gc.freeze()
