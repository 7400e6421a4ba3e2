"""Rules about all pages of the kernel's half of the address space, whatever they belong to.

What lies in a section of the kernel's image is left to the rules about sections (EXO064, EXO065).
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from exogdb.abi.check.facts import Facts, known
from exogdb.abi.check.rule import Finding, Outcome, Rule, Severity
from exogdb.errors import UnavailableError
from exogdb.reading import Unavailable
from exogdb.x86.page_scan import MappedPage

__all__ = ["KERNEL_PAGE_RULES"]

EFER_NXE = 1 << 11
VSYSCALL = 0xFFFFFFFFFF600000  # Linux, Documentation/arch/x86/x86_64/mm.rst: a page of user code by design
PAGES = "the kernel's page tables"


def _is_in_image(page: MappedPage, facts: Facts) -> bool:
    sections = () if isinstance(facts.sections, Unavailable) else facts.sections
    return any(page.address < each.end and each.start < page.address + page.size for each in sections)


def _summary(pages: Sequence[MappedPage], what: str) -> str:
    count = "1 page is" if len(pages) == 1 else f"{len(pages)} pages are"
    return (
        f"{count} {what}, the first at {pages[0].address:#x}, {sum(page.size for page in pages) >> 10} KiB in all"
    )


def _bad_pages(
    facts: Facts, is_bad: Callable[[MappedPage], bool], what: str, expected: str, severity: Severity | None = None
) -> Iterator[Finding]:
    pages = [page for page in known(facts.kernel_pages) if is_bad(page) and not _is_in_image(page, facts)]
    if pages:
        yield Finding(_summary(pages, what), expected, PAGES, pages[0].address, severity=severity)


def _check_writable_code(facts: Facts) -> Iterator[Outcome]:
    if not all(cpu.msr("IA32_EFER") & EFER_NXE for cpu in facts.cpus):
        raise UnavailableError("without EFER.NXE every page is executable (EXO062)")
    yield from _bad_pages(
        facts,
        lambda page: page.writable and not page.nx,
        "writable and executable",
        "each page of the kernel either writable or executable",
    )


def _check_user_pages(facts: Facts) -> Iterator[Outcome]:
    expected = "U/S = 0 at some level for every page of the upper half"
    yield from _bad_pages(facts, lambda page: page.user and page.writable, "writable by user programs", expected)
    yield from _bad_pages(
        facts,
        lambda page: page.user and not page.writable and page.address != VSYSCALL,
        "readable by user programs",
        expected,
        Severity.WARNING,
    )


def _check_aliases(facts: Facts) -> Iterator[Outcome]:
    """Pages of code are few and the others many: those are looked up in the former, sorted by physical address."""
    code = sorted(
        (page for page in known(facts.kernel_pages) if not page.nx and not page.writable),
        key=lambda page: page.physical,
    )
    starts = [page.physical for page in code]
    writable = (page for page in known(facts.kernel_pages) if page.writable)
    aliases = [(page, same) for page in writable if (same := _overlapping(page, code, starts)) is not None]
    if aliases:
        first, same = aliases[0]
        yield Finding(
            _summary([page for page, _ in aliases], "writable and of the same memory as code")
            + f"; the code is at {facts.name(same.address)}",
            "no other mapping of code, or one that is read-only",
            PAGES,
            first.address,
        )


def _overlapping(page: MappedPage, code: Sequence[MappedPage], starts: Sequence[int]) -> MappedPage | None:
    """The page of code that shares physical memory with `page`."""
    last = bisect_right(starts, page.physical + page.size - 1) - 1
    if last < 0 or code[last].physical + code[last].size <= page.physical:
        return None
    return code[last]


KERNEL_PAGE_RULES = (
    Rule(
        "EXO067",
        Severity.WARNING,
        "No page of the kernel is writable and executable",
        "Whoever can make the kernel write to such a page, with a stray copy from user memory, say, has code run "
        "at CPL 0. It need not be in the kernel's image: heaps, stacks, modules and generated code count, too.",
        "Intel SDM Vol. 3A, Access Rights; Linux, Documentation/security/self-protection.rst",
        "Map memory with XD (bit 63) unless it holds code, and code with R/W = 0.",
        _check_writable_code,
    ),
    Rule(
        "EXO068",
        Severity.ERROR,
        "The kernel's half is the kernel's",
        "A program reads or writes any page of the upper half that has U/S = 1 at all levels: page tables, other "
        "processes' memory, return addresses on kernel stacks.",
        "Intel SDM Vol. 3A, Access Rights",
        "Clear U/S in the entries of the top table that all processes share; the levels below then do not matter.",
        _check_user_pages,
    ),
    Rule(
        "EXO069",
        Severity.WARNING,
        "Kernel code has no writable alias",
        "Read-only text protects nothing if the same memory is writable elsewhere: a map of all physical memory "
        "is where a stray or an attacker's write most likely goes.",
        "Intel SDM Vol. 3A, Access Rights; Linux, Documentation/security/self-protection.rst",
        "Map the frames of the kernel's code and constants read-only in the physical map, too.",
        _check_aliases,
    ),
)
