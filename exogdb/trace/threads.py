"""Which kernel stack is whose, learnt from returns that were paired without doubt.

A kernel stack belongs to one thread as long as that lives, and a thread is in one system call at a time. So what
is known of a kernel stack names the thread where registers do not: its address space, and the part of that space
where the thread's user stack has been seen at its calls.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

__all__ = ["KernelStacks"]

# A thread's user stack pointers at its calls stay this close; beyond it the kernel stack has a new owner.
_STACK_REACH = 64 * 1024
_REMEMBERED_STACKS = 4096


@dataclass(slots=True)
class _Owner:
    """A thread, as its calls have shown it: `lowest` and `highest` user stack pointer, both seen."""

    space: int
    lowest: int
    highest: int

    def has_used(self, space: int, user_rsp: int) -> bool:
        return space == self.space and self.lowest <= user_rsp <= self.highest

    def is_near(self, user_rsp: int) -> bool:
        return self.highest - _STACK_REACH < user_rsp < self.lowest + _STACK_REACH


@dataclass
class KernelStacks:
    """Kernel stacks by their rsp at the return, 4,096 at most; the one that taught nothing for longest goes first.

    >>> stacks = KernelStacks()
    >>> stacks.learn(0xf000, 0x1000, 0x7000); stacks.learn(0xf000, 0x1000, 0x7800)
    >>> hex(stacks.find(0x1000, 0x7400)), stacks.find(0x1000, 0x9000), stacks.find(0x2000, 0x7400)
    ('0xf000', None, None)
    """

    _owners: "OrderedDict[int, _Owner]" = field(default_factory=OrderedDict)
    _in_space: dict[int, set[int]] = field(default_factory=dict)

    def learn(self, stack: int, space: int, user_rsp: int) -> None:
        """The thread on `stack` has returned from a call that it made with `user_rsp`."""
        owner = self._owners.get(stack)
        if owner is not None and owner.has_used(space, user_rsp):
            return
        if owner is not None and owner.space == space and owner.is_near(user_rsp):
            owner.lowest, owner.highest = min(owner.lowest, user_rsp), max(owner.highest, user_rsp)
            self._owners.move_to_end(stack)
            return
        self._drop(stack)
        stale = self.find(space, user_rsp)
        if stale is not None:  # of a process that was killed, whose page table this one has now
            self._drop(stale)
        self._owners[stack] = _Owner(space, user_rsp, user_rsp)
        self._in_space.setdefault(space, set()).add(stack)
        if len(self._owners) > _REMEMBERED_STACKS:
            self._drop(next(iter(self._owners)))

    def forget_space(self, space: int) -> None:
        """The process in `space` has ended."""
        for stack in list(self._in_space.get(space, ())):
            self._drop(stack)

    def space(self, stack: int) -> int | None:
        """The address space of the thread on `stack`, if it is known."""
        owner = self._owners.get(stack)
        return None if owner is None else owner.space

    def find(self, space: int, user_rsp: int) -> int | None:
        """The kernel stack of the thread that has made calls with `user_rsp` or on both sides of it, if any."""
        stacks = self._in_space.get(space, ())
        return next((stack for stack in stacks if self._owners[stack].has_used(space, user_rsp)), None)

    def _drop(self, stack: int) -> None:
        owner = self._owners.pop(stack, None)
        if owner is None:
            return
        others = self._in_space[owner.space]
        others.discard(stack)
        if not others:
            del self._in_space[owner.space]
