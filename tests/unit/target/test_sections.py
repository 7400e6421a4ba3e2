"""GDB's list of sections, and which of its files is the kernel."""

from exogdb.abi.section import Section
from exogdb.target.sections import find_code_with_tables, find_kernel_code, find_kernel_sections, parse_sections

KERNEL = "/build/exo-os.elf"
PROGRAM = "/build/programs/demo.elf"
# As GDB 13.1 prints it, with a user program as the main file.
TEXT = f"""\
Exec file: `{PROGRAM}', file type elf64-x86-64.
 [0]      0x10001000->0x1000517c at 0x00001000: .text ALLOC LOAD READONLY CODE HAS_CONTENTS
 [1]      0x00000000->0x00024572 at 0x0007da08: .debug_loc READONLY HAS_CONTENTS
Object file: `{KERNEL}', file type elf64-x86-64.
 [0]      0x00100000->0x00105026 at 0x00001000: .boot ALLOC LOAD CODE HAS_CONTENTS
 [2]      0xffffffff80106000->0xffffffff801109af at 0x00007000: .text ALLOC LOAD READONLY CODE HAS_CONTENTS
 [5]      0xffffffff8017ca10->0xffffffff80181a40 at 0x0007da08: .bss ALLOC
 [9]      0xffffffff80181a40->0xffffffff80181a40 at 0x0007da08: .empty ALLOC
"""
KERNEL_TEXT = Section(".text", 0xFFFFFFFF80106000, 0xFFFFFFFF801109AF, executable=True, writable=False)


def test_only_what_takes_up_memory_is_a_section() -> None:
    files = parse_sections(TEXT)
    assert [section.name for section in files[PROGRAM]] == [".text"]
    assert [section.name for section in files[KERNEL]] == [".boot", ".text", ".bss"]
    assert files[KERNEL][1] == KERNEL_TEXT
    assert [(section.executable, section.writable) for section in files[KERNEL]] == [
        (True, True),
        (True, False),
        (False, True),
    ]


def test_the_kernel_is_the_file_that_holds_the_entry() -> None:
    files = parse_sections(TEXT)
    assert find_kernel_sections(files, 0xFFFFFFFF80106000) == files[KERNEL]
    assert find_kernel_sections(files, None) == files[KERNEL]


def test_an_entry_in_a_user_program_does_not_make_that_the_kernel() -> None:
    files = parse_sections(TEXT)
    assert find_kernel_sections(files, 0x10001000) == files[KERNEL]


def test_a_user_program_alone_is_no_kernel() -> None:
    program = {PROGRAM: parse_sections(TEXT)[PROGRAM]}
    assert find_kernel_sections(program, 0xFFFFFFFF81C00080) is None
    # A kernel in the lower half is one by its entry alone.
    assert find_kernel_sections(program, 0x10001000) == program[PROGRAM]


def test_code_with_unwind_tables_is_that_of_files_that_have_some() -> None:
    listing = """
Exec file: `/kernel.elf', file type elf64-x86-64.
 [0]      0xffffffff80100000->0xffffffff80101000 at 0x00001000: .text ALLOC LOAD READONLY CODE HAS_CONTENTS
 [1]      0x00000000->0x000004b8 at 0x0000a000: .debug_frame READONLY HAS_CONTENTS
Object file: `/symbols.elf', file type elf64-x86-64.
 [0]      0xffffffff81000000->0xffffffff82000000 at 0x00001000: .text ALLOC LOAD READONLY CODE HAS_CONTENTS
Object file: `/program.elf', file type elf64-x86-64.
 [0]      0x00401000->0x00402000 at 0x00001000: .text ALLOC LOAD READONLY CODE HAS_CONTENTS
 [1]      0x00403000->0x00403100 at 0x00003000: .eh_frame ALLOC LOAD READONLY DATA HAS_CONTENTS
"""
    kernel, program = range(0xFFFFFFFF80100000, 0xFFFFFFFF80101000), range(0x401000, 0x402000)
    assert find_code_with_tables(listing) == [kernel, program]


def test_kernel_code_is_what_lies_in_the_upper_half_and_is_in_the_file() -> None:
    bare = """\
Object file: `/symbols.elf', file type elf64-x86-64.
 [0]      0xffffffff81000000->0xffffffff82000000 at 0x00001000: .text ALLOC READONLY CODE
"""
    assert find_kernel_code(TEXT + bare) == {KERNEL: [(0xFFFFFFFF80106000, 0x7000, 0xA9AF)]}
