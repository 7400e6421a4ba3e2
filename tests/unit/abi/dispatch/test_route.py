"""Each number is followed to its own code, whatever the compiler made of the dispatcher."""

import signal

import pytest

from exogdb.abi.dispatch.emulation import Emulator
from exogdb.abi.dispatch.route import UNKNOWN, find_routes, sample_unknown
from exogdb.abi.dispatch.trace import DispatcherEntry, Ending
from exogdb.abi.stub.location import InFrame, InRegister, Location, OnStack
from tests.unit.abi.kernel_images import BASE, Image, build_assembly, build_c, build_rust

C_ARGUMENTS: tuple[Location, ...] = (*(InRegister(name) for name in ("rsi", "rdx", "rcx", "r8", "r9")), OnStack(8))
NUMBERS = (0, 1, 2, 3, 4, 100, 101, 102, 200, 201, 300, 301, 302, 303)
HANDLERS = {n: f"sys_{n}" for n in NUMBERS if n not in (3, 4, 0, 101)} | {
    0: "sys_exit",
    4: "sys_getpid",
    101: "sys_send",
}


def rust_dispatcher() -> str:
    """A `match` over NUMBERS as in the kernel: a counter first, 1 and 2 with equal bodies, 3 not handled."""
    handlers = "".join(
        f'#[no_mangle] #[inline(never)] pub extern "C" fn {name}(a: u64, b: u64, c: u64) -> u64 '
        f"{{ LOG.store(a ^ b.wrapping_mul(c), Ordering::Relaxed); a + {1 if n == 2 else n} }}\n"
        for n, name in HANDLERS.items()
    )
    arms = "".join(f"{n} => {name}(a, b, c),\n" for n, name in HANDLERS.items())
    return f"""
        use core::sync::atomic::*;
        static SYSCALL_COUNT: AtomicU64 = AtomicU64::new(0);
        static LOG: AtomicU64 = AtomicU64::new(0);
        {handlers}
        #[no_mangle]
        pub extern "C" fn syscall_dispatch(n: u64, a: u64, b: u64, c: u64, _d: u64, _e: u64, _f: u64) -> u64 {{
            SYSCALL_COUNT.fetch_add(1, Ordering::Relaxed);
            match n {{ {arms} _ => (-1i64) as u64 }}
        }}
    """


def entry_of(image: Image, number: Location | None = None) -> DispatcherEntry:
    return DispatcherEntry(image.symbols["syscall_dispatch"], number or InRegister("rdi"), C_ARGUMENTS)


@pytest.mark.parametrize("optimisation", ["opt-level=0", "opt-level=2", "opt-level=3", "opt-level=s"])
def test_every_handled_number_of_a_rust_match_has_an_address_of_its_own(optimisation: str) -> None:
    image = build_rust(rust_dispatcher(), optimisation)
    routes = find_routes(image, entry_of(image), NUMBERS)
    merged = {1, 2} if optimisation != "opt-level=0" else set()
    for number, name in HANDLERS.items():
        route = routes[number]
        reached = set(route.private)
        if route.callee is not None and route.is_callee_private:
            reached.add(route.callee)
        if number in merged:
            assert route.shared_with == merged - {number}
            assert not route.private
        else:
            assert image.symbols[name] in reached, f"{number} does not lead to {name}: {route}"
            assert all(routes.keys_at(address) == {number} for address in reached)
    assert not routes[3].private
    assert not routes[UNKNOWN].private


def test_a_jump_table_has_one_entry_for_each_number_even_if_arms_are_merged() -> None:
    image = build_rust(rust_dispatcher(), "opt-level=3")
    routes = find_routes(image, entry_of(image), NUMBERS)
    entries = {number: routes[number].reads[-1] for number in (0, 1, 2, 3, 4)}
    assert len({entry.address for entry in entries.values()}) == 5
    step = entries[1].address - entries[0].address
    assert all(entries[n].address == entries[0].address + n * step for n in entries)


TODAY = """
typedef unsigned long u64;
struct frame { u64 rax, r9, r8, r10, rdx, rdi, rsi, rsp, r15, r14, r13, r12, rbx, rbp, r11, rcx; };
typedef long handler(u64, u64, u64, u64, u64, u64);
u64 SYSCALL_COUNT; u64 audit_seen;
#define H(n) long sys_##n(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) { return a * (n) + b - c * d + e + f; }
H(39) H(300) H(301) H(304) H(500) H(57)
__attribute__((noinline)) long sys_enosys(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) { return -38; }
__attribute__((noinline)) static void audit(u64 nr) { audit_seen = nr; }
__attribute__((noinline)) static int zero_trust(struct frame *f) { return f->rax > 547; }
__attribute__((noinline)) static handler *get_handler(u64 nr) {
    switch (nr) {
    case 39: return sys_39; case 300: return sys_300; case 301: return sys_301; case 304: return sys_304;
    case 500: return sys_500; case 302: case 303: return sys_enosys; default: return sys_enosys;
    }
}
__attribute__((noinline)) static void dispatch(struct frame *f) {
    SYSCALL_COUNT++;
    if (f->rax >= 550) { f->rax = -38; return; }
    audit(f->rax);
    if (zero_trust(f)) { f->rax = -1; return; }
    if (f->rax == 57) { f->rax = sys_57(f->rdi, 0, 0, 0, 0, 0); return; }
    f->rax = get_handler(f->rax)(f->rdi, f->rsi, f->rdx, f->r10, f->r8, f->r9);
}
void syscall_dispatch(struct frame *f) { dispatch(f); }
"""


@pytest.mark.parametrize("optimisation", ["-O0", "-O1", "-O2", "-Os"])
def test_a_frame_dispatcher_with_a_function_that_returns_handlers(optimisation: str) -> None:
    image = build_c(TODAY, optimisation)
    routes = find_routes(image, entry_of(image, InFrame("rdi", 0)), (39, 57, 300, 301, 302, 303, 304, 500))
    # With -Os gcc computes the answer before it compares, so that no address is left to 57 alone.
    assert bool(routes[57].private) is (optimisation != "-Os")
    for number in (39, 300, 301, 304, 500):
        route = routes[number]
        assert image.symbols[f"sys_{number}"] in {*route.private, route.callee}, (optimisation, number, route)
    assert routes[302].shared_with >= {303}


COMPARE_CHAIN = """
.globl syscall_dispatch
syscall_dispatch:
    mov rax, [rsp+8]
    cmp rax, 101
    je arm_101
    cmp rax, 102
    je arm_102
    cmp rax, 103
    je spin
    mov rax, -1
    ret
arm_101:
    xor eax, eax
    ret
arm_102:
    call [handler]
    ret
spin:
    jmp spin
.section .text.sys_send
sys_send:
    ret
.data
handler: .quad sys_send
"""


def test_assembly_with_the_number_on_the_stack_and_an_arm_that_never_ends() -> None:
    image = build_assembly(COMPARE_CHAIN)
    routes = find_routes(image, entry_of(image, OnStack(8)), (101, 102, 103))
    assert routes[101].private == (image.symbols["arm_101"],)
    assert routes[102].private == (image.symbols["arm_102"],)
    assert routes[102].callee == image.symbols["sys_send"]
    assert routes[103].private == (image.symbols["spin"],)
    assert routes[103].ending is Ending.BUDGET
    assert len(routes[UNKNOWN].private) == 1


def test_a_call_that_cannot_be_emulated_is_passed_over() -> None:
    image = build_assembly(
        """
        .globl syscall_dispatch
        syscall_dispatch:
            call lock
            cmp rdi, 7
            je arm_7
            ret
        arm_7: ret
        .section .text.sys_getpid
        lock: ud2
        """
    )
    routes = find_routes(image, entry_of(image), (7,))
    assert routes[7].private == (image.symbols["arm_7"],)


def test_a_fault_is_not_blamed_on_a_call_that_has_returned() -> None:
    """Both calls push their return address at the same place; without the first there is no number."""
    image = build_assembly(
        """
        .globl syscall_dispatch
        syscall_dispatch:
            call enter
            cmp rax, 7
            je arm_7
        done:
            call leave
            ret
        arm_7:
            xor eax, eax
            jmp done
        .section .text.sys_getpid
        enter:
            mov rax, rdi
            ret
        leave:
            call restore
            ret
        restore:
            ud2
        """
    )
    routes = find_routes(image, entry_of(image), (7,))
    assert routes[7].private == (image.symbols["arm_7"],)


def test_nothing_is_read_twice_and_writes_stay_in_the_emulator() -> None:
    image = build_rust(rust_dispatcher(), "opt-level=3")
    before = dict(image.pages)
    asked: list[int] = []

    class Recording:
        def read(self, address: int, size: int) -> bytes:
            asked.append(address)
            return image.read(address, size)

    find_routes(Recording(), entry_of(image), NUMBERS)
    assert image.pages == before
    assert len(asked) == len(set(asked))


def test_unmapped_code_ends_the_run_and_is_no_error() -> None:
    image = build_assembly(".globl syscall_dispatch\nsyscall_dispatch: mov rax, 0x1234567\n jmp rax")
    routes = find_routes(image, entry_of(image), (1, 2))
    assert routes[1].private == ()
    assert routes[1].ending is Ending.FAULT


def test_emulation_starts_from_the_same_memory_each_time() -> None:
    image = build_assembly(
        """
        .globl syscall_dispatch
        syscall_dispatch:
            inc qword ptr [count]
            cmp qword ptr [count], 1
            jne wrong
            ret
        wrong: ret
        .data
        count: .quad 0
        """
    )
    emulator = Emulator(image, entry_of(image))
    runs = [emulator.run(5, frozenset(), frozenset()).blocks for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0][0].start == BASE


def test_samples_are_never_numbers_of_the_table() -> None:
    samples = sample_unknown(NUMBERS)
    assert not set(samples) & set(NUMBERS)
    assert {5, 99, 103, 304, (1 << 64) - 1} <= set(samples)


def test_what_belongs_to_one_cpu_or_process_or_goes_down_again_counts_no_calls() -> None:
    image = build_assembly(
        """
        .globl syscall_dispatch
        syscall_dispatch:
            inc qword ptr gs:[8]
            mov rax, gs:[0]
            inc qword ptr [rax+16]
            mov rax, [rip+nobody]
            inc qword ptr [rax]
            mov rax, [rip+current]
            inc qword ptr [rax+8]
            inc qword ptr [rip+depth]
            lock inc qword ptr [rip+calls]
            lea rax, [rdi+rdi]
            dec qword ptr [rip+depth]
            ret
        .data
        .globl calls
        calls: .quad 0
        nobody: .quad 0
        depth: .quad 0
        current: .quad process
        process: .quad 4, 0
        .globl block
        .balign 8
        block: .quad block, 0, 0
        """
    )
    routes = find_routes(image, entry_of(image), (1, 2), image.symbols["block"])
    assert routes.counters() == [image.symbols["calls"]]


class PressesCtrlC:
    """Memory whose every read is met by a Ctrl-C."""

    def __init__(self, image: Image) -> None:
        self._image = image

    def read(self, address: int, size: int) -> bytes:
        signal.raise_signal(signal.SIGINT)  # to this thread: others do not hold it
        return self._image.read(address, size)


def test_ctrl_c_waits_for_the_end_of_a_run() -> None:
    """Inside one the emulator calls back through C, where the exception could be printed and lost."""
    image = build_rust(rust_dispatcher(), "opt-level=2")
    with pytest.raises(KeyboardInterrupt) as caught:
        find_routes(PressesCtrlC(image), entry_of(image), NUMBERS)
    assert "read" not in {entry.name for entry in caught.traceback}


ONE_OR_TWO = """
    .globl syscall_dispatch
    syscall_dispatch:
        cmp rdi, 1
        je one
        cmp rdi, 2
        je two
"""
BEHIND_A_CALL = f"""
    {ONE_OR_TWO}
        mov rax, -1
        ret
    one:
        call handler
        test rax, rax
        js failed
        ret
    two:
        mov rax, [word]
        test rax, rax
        jz failed
        ret
    failed:
        mov rax, -2
        ret
    handler:
        ret
    .data
    word: .quad 0
"""


def test_what_runs_behind_a_call_that_fails_belongs_to_the_caller_too() -> None:
    image = build_assembly(BEHIND_A_CALL)
    routes = find_routes(image, entry_of(image), [1, 2])
    assert image.symbols["two"] in routes[2].private
    assert image.symbols["failed"] not in routes[2].private


def test_what_an_arm_reads_is_no_table_of_the_dispatcher() -> None:
    image = build_assembly(BEHIND_A_CALL)
    assert find_routes(image, entry_of(image), [1, 2])[2].reads == ()
