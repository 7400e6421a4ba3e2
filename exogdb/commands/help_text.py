"""The help of a command or function, read without importing its module.

GDB wants it when it is told of the command. It is a docstring, which Python keeps in what it compiled.
"""

from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from textwrap import dedent
from types import CodeType, FunctionType

__all__ = ["read_help"]


def read_help(module: str, function: str) -> str:
    """The docstring of `function` in `module` of this directory, without its indentation.

    >>> read_help("gdt", "exo_gdt").splitlines()[0]
    'Show the GDT of this CPU: what each selector hits, and what uses it.'

    :raise LookupError: there is no such function.
    """
    spec = find_spec(f"{__package__}.{module}")
    assert spec is not None
    assert isinstance(spec.loader, SourceFileLoader)
    compiled = spec.loader.get_code(spec.name)
    assert compiled is not None  # a source file has code
    for each in compiled.co_consts:
        if isinstance(each, CodeType) and each.co_name == function:
            first, _, rest = (FunctionType(each, {}).__doc__ or "").partition("\n")
            return f"{first.strip()}\n{dedent(rest)}".strip()
    raise LookupError(f"{module}.py has no function {function}")
