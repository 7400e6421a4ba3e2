#!/bin/sh
# Boots a kernel in QEMU, stops it in its first system call, and lets `exo-syscall check` examine it.
#
#     check-kernel.sh KERNEL.elf FUNCTION [QEMU OPTION]...
#
# FUNCTION is what the entry stub calls, such as syscall_dispatch. A kernel that does not get there in CHECK_SECONDS
# (30) is examined wherever it hangs. The report goes to standard output, and as JSON to check.json.
# Exit status: 0 if there is no error, 1 if there is one, or if the kernel could not be examined.
set -eu
kernel=$1
function=$2
shift 2
exogdb=${EXOGDB:-$(cd "$(dirname "$0")/../.." && pwd)}
work=$(mktemp -d)

qemu-system-x86_64 -kernel "$kernel" -display none -no-reboot -S -serial "file:$work/serial.log" \
    -gdb "unix:$work/gdb.sock,server=on,wait=off" -qmp "unix:$work/qmp.sock,server=on,wait=off" "$@" &
qemu=$!
trap 'kill $qemu 2>/dev/null || true; rm -rf "$work"' EXIT
while [ ! -S "$work/gdb.sock" ] || [ ! -S "$work/qmp.sock" ]; do
    kill -0 $qemu # ends the script if QEMU has ended
    sleep 0.1
done

# In a file, the first command that fails ends all of them, and GDB with status 1.
cat >"$work/check.gdb" <<END
source $exogdb/gdbinit.py
set breakpoint pending off
target remote $work/gdb.sock
hbreak $function
continue
pipe exo-syscall check --fail-on never --json | cat > check.json
exo-syscall check
END
# After CHECK_SECONDS timeout does what a user would: Ctrl-C. It stops the guest, and the commands go on.
timeout --foreground --preserve-status -s INT -k 60 "${CHECK_SECONDS:-30}" gdb -nx -q -batch -x "$work/check.gdb" "$kernel" || {
    status=$?
    echo "--- serial ---"
    cat "$work/serial.log"
    exit $status
}
