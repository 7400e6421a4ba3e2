"""What the return of a wait says about the child: that it is gone, or only that it has stopped or goes on."""

from exogdb.trace.call import Call

__all__ = ["find_reaped"]

# The third argument of wait4 and waitpid (Linux, include/uapi/linux/wait.h; POSIX, sys/wait.h).
_WUNTRACED, _WCONTINUED = 2, 8
_OPTIONS = 0xE000_0001 | _WUNTRACED | _WCONTINUED  # and WNOHANG, __WNOTHREAD, __WALL, __WCLONE
_WORD = (1 << 32) - 1


def find_reaped(call: Call) -> int | None:
    """The kernel's number of the process that is gone for good now that the wait `call` has returned.

    None if there is none, or if the caller also wanted to know of children that have merely stopped. An argument
    with other bits is no options: the kernel would have refused them.

    >>> call = Call(1, 0, 0x1000, 1, 61, (12, 0, 0, 0, 0, 0), result=12)
    >>> find_reaped(call)
    12
    >>> call.arguments = (12, 0, 2, 0, 0, 0)
    >>> find_reaped(call)
    """
    if not call.result or call.failed:
        return None
    options = call.arguments[2] & _WORD if call.arguments is not None else 0
    if options & (_WUNTRACED | _WCONTINUED) and not options & ~_OPTIONS:
        return None
    return call.result
