"""The GDB commands, one file each: parse, read, decode, show."""

__all__ = ["load"]


def load() -> None:
    """Register every command and setting with GDB. Sourcing `gdbinit.py` again registers them again."""
    from importlib import import_module
    from pkgutil import iter_modules

    from exogdb.commands.functions import register_functions
    from exogdb.commands.registry import register_commands
    from exogdb.target.settings import let_names_be_utf8, register_settings

    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    let_names_be_utf8()
    register_settings()
    register_commands()
    register_functions()
