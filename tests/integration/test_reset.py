"""A guest that QEMU resets while GDB holds it: nothing that GDB remembers of it is shown or relied on."""

import json

from tests.harness.session import open_guest
from tests.integration.stops import hits, stopped_at

RESET_VECTOR = 0xFFF0  # Intel SDM Vol. 3A, "First Instruction Executed", as an offset from CS's base
REBOOTS = ("-action", "reboot=reset")
MOST_STOPS = 40
MARK = 1 << 40  # more calls than a kernel makes in a test


def test_after_a_reset_everything_begins_anew_whatever_cpu_is_selected() -> None:
    with open_guest("run=demo", smp=2, qemu=REBOOTS) as guest:
        gdb = guest.gdb
        gdb.run("exo-syscall break ipc_send")
        gdb.run("exo-syscall break ipc_send --on-return --ignore 1000000")
        for _ in range(MOST_STOPS):
            if gdb.run("continue").endswith("on CPU 1\n"):
                break
        stops = hits(gdb, 1)
        gdb.run(f"with language c -- set var *(unsigned long *)&'SYSCALL_COUNT' = {MARK}")
        said = gdb.reply("monitor system_reset").err
        assert "The guest was reset, or a snapshot loaded, while GDB held it" in said
        assert gdb.integer("$pc") == RESET_VECTOR
        # GDB would step CPU 1 off the breakpoint that it stood on, and that CPU waits to be started.
        assert stopped_at(gdb.run("continue", 60)) == 101
        assert 0 < gdb.word("SYSCALL_COUNT") < MARK
        assert hits(gdb, 1) == stops + 1


def test_a_command_that_follows_without_a_prompt_sees_it_too() -> None:
    with open_guest("run=demo", qemu=REBOOTS) as guest:
        assert guest.gdb.integer("$efer") != 0
        commands = ("monitor system_reset", "exo-msr efer --json")
        script = "; ".join(f'gdb.execute("{command}")' for command in commands)
        answer = json.loads(guest.gdb.reply(f"python {script}").out)
        assert answer["cpus"][0]["msrs"]["IA32_EFER"]["value"] == "0x0"
