"""`python -m bench [MODULE ...]`: run the benchmarks, print a table, write `build/bench.json`."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import bench
from bench.figures import Bench, figures_to_json, render_figures

__all__ = ["main"]

NO_BENCHMARKS = {"__main__", "figures"}
RESULT = Path("build/bench.json")


def main(names: list[str]) -> int:
    """Run the modules called `names` (default: all); status 2 for a name that does not exist."""
    known = [module.name for module in iter_modules(bench.__path__) if module.name not in NO_BENCHMARKS]
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"bench: there is no {unknown[0]}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    taken = Bench()
    for name in names or known:
        print(f"bench: {name}", file=sys.stderr, flush=True)
        import_module(f"bench.{name}").measure(taken)
    print(render_figures(taken.figures))
    RESULT.parent.mkdir(exist_ok=True)
    result = {"machine": _machine(), "figures": figures_to_json(taken.figures)}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _machine() -> dict[str, str]:
    return {
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count()),
        "gdb": _first_line("gdb", "--version"),
        "qemu": _first_line("qemu-system-x86_64", "--version"),
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _first_line(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
