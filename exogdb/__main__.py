"""`python -m exogdb` is the console script `exogdb`."""

import sys

from exogdb.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
