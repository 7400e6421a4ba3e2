"""scripts/bring-in: installs what is missing where it may, says exactly what to install where it may not.

The programs that it calls are small scripts in a directory of its own; nothing on this machine is installed.
"""

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness.kernel import ROOT

TABLE = """
# group package check
run   alpha         command -v alpha
run   beta-web|beta command -v beta
test  gamma         command -v gamma
"""
PLAIN = ("sh", "env", "tr", "dirname", "cat", "chmod")
SUDO = """#!/bin/sh
echo "sudo $*" >>"$LOG"
case "$1" in
-n) shift; exec "$@" ;;
-v) exit 0 ;;
*) exec "$@" ;;
esac
"""
NO_SUDO = """#!/bin/sh
echo "sudo $*" >>"$LOG"
exit 1
"""
ASKING_SUDO = SUDO.replace('-n) shift; exec "$@" ;;', "-n) exit 1 ;;")
NO_NETWORK = """#!/bin/sh
echo "E: Unable to locate package" >&2
exit 100
"""
APT = """#!/bin/sh
echo "apt-get $*" >>"$LOG"
for word; do case "$word" in
alpha|beta|gamma) printf '#!/bin/sh\\n' >"$BIN/$word"; chmod +x "$BIN/$word" ;;
esac; done
"""


class Machine:
    """A directory with the script, the table, and the only programs there are."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.log = directory / "log"
        self.scripts = directory / "scripts"
        self.bin.mkdir()
        self.scripts.mkdir()
        shutil.copy(ROOT / "scripts" / "bring-in", self.scripts)
        (self.scripts / "debian-packages").write_text(TABLE)
        for name in PLAIN:
            if found := shutil.which(name):
                (self.bin / name).symlink_to(found)

    def add(self, name: str, text: str = "#!/bin/sh\n") -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def add_apt(self, *known: str) -> None:
        self.add("apt-get", APT)
        self.add("apt-cache", f'#!/bin/sh\ncase " {" ".join(known)} " in *" $3 "*) ;; *) exit 1 ;; esac\n')

    def bring_in(self, *groups: str, on_terminal: bool = False) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": str(self.bin), "LOG": str(self.log), "BIN": str(self.bin)}
        ours, theirs = pty.openpty() if on_terminal else (-1, subprocess.DEVNULL)
        try:
            return subprocess.run(
                [str(self.bin / "sh"), str(self.scripts / "bring-in"), *groups],
                env=environment,
                stdin=theirs,
                stdout=subprocess.PIPE,
                stderr=theirs if on_terminal else subprocess.PIPE,
                text=True,
                timeout=20,
                check=False,
            )
        finally:
            for end in (ours, theirs) if on_terminal else ():
                os.close(end)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def user(number: int) -> str:
    return f"#!/bin/sh\necho {number}\n"


def test_nothing_missing_is_silent_and_asks_no_package_manager(machine: Machine) -> None:
    machine.add("alpha")
    machine.add("beta")
    done = machine.bring_in("run")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_root_installs_what_is_missing_and_knows_alternatives(machine: Machine) -> None:
    machine.add("id", user(0))
    machine.add_apt("alpha", "beta", "gamma")
    assert machine.bring_in("run").returncode == 0
    update, install = machine.log.read_text().splitlines()
    assert update.startswith("apt-get update")
    assert install.endswith("--no-install-recommends alpha beta")


def test_a_user_whom_sudo_asks_nothing_installs_by_it(machine: Machine) -> None:
    machine.add("id", user(1000))
    machine.add("sudo", SUDO)
    machine.add("true")
    machine.add_apt("alpha", "beta")
    assert machine.bring_in("run").returncode == 0
    assert "sudo -n apt-get update -qq" in machine.log.read_text().splitlines()


def test_sudo_asks_for_a_password_only_on_a_terminal(machine: Machine) -> None:
    machine.add("id", user(1000))
    machine.add("sudo", ASKING_SUDO)
    machine.add_apt("alpha", "beta")
    done = machine.bring_in("run")
    assert "installing packages needs root" in done.stderr
    assert "apt-get" not in machine.log.read_text()
    assert machine.bring_in("run", on_terminal=True).returncode == 0
    assert "sudo apt-get update -qq" in machine.log.read_text().splitlines()


def test_a_user_whom_sudo_refuses_is_told_what_root_should_run(machine: Machine) -> None:
    machine.add("id", user(1000))
    machine.add("sudo", NO_SUDO)
    machine.add_apt("alpha", "beta")
    for on_terminal in (False, True):
        assert machine.bring_in("run", on_terminal=on_terminal).returncode == 1
    assert "apt-get" not in machine.log.read_text()
    assert machine.bring_in("run").stderr.rstrip().endswith("run: apt-get install alpha beta")


def test_without_a_network_the_last_line_says_what_to_install(machine: Machine) -> None:
    machine.add("id", user(0))
    machine.add_apt()
    machine.add("apt-get", NO_NETWORK)
    done = machine.bring_in("run")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "apt-get could not install what is missing" in last
    assert last.endswith("run: apt-get install alpha beta-web")


def test_a_group_that_was_not_asked_for_is_left_alone(machine: Machine) -> None:
    machine.add("alpha")
    machine.add("beta")
    assert machine.bring_in("run").returncode == 0
    assert machine.bring_in("run", "test").returncode == 1


def test_without_apt_it_says_what_to_install(machine: Machine) -> None:
    machine.add("beta")
    done = machine.bring_in("run")
    assert done.returncode == 1
    assert "there is no apt here" in done.stderr
    assert done.stderr.rstrip().endswith("run: apt-get install alpha")


def test_a_user_who_may_not_install_is_told_what_root_should_run(machine: Machine) -> None:
    machine.add("id", user(1000))
    machine.add_apt("alpha", "beta-web")
    done = machine.bring_in("run")
    assert done.returncode == 1
    assert "installing packages needs root" in done.stderr
    assert done.stderr.rstrip().endswith("run: apt-get install alpha beta-web")
    assert not machine.log.exists()


def test_a_package_that_does_not_help_is_an_error(machine: Machine) -> None:
    machine.add("id", user(0))
    machine.add_apt("alpha", "beta-web")
    done = machine.bring_in("run")
    assert done.returncode == 1
    assert done.stderr.endswith(
        "what was installed for beta-web|beta is too old or not usable; Debian 12 or newer has what is needed\n"
    )
