"""A shell with one job, at a terminal: takes the steps of its first argument, prints what it saw.

    type HEX     what the user types          fg, bg       the job is in the foreground, or not
    hear         a line of the job            kill N       a signal to the job's first process
    wait         the job stops or ends        killpg N     a signal to the job's process group

Runs as a script, as the leader of a session of its own.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import termios

steps, *command = sys.argv[1:]
master, slave = os.openpty()
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
out, into = os.pipe()
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)  # ignored in the tests' own background job
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    os.tcsetpgrp(slave, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.dup2(slave, 0)
    os.dup2(into, 1)
    os.execv(command[0], command)
os.close(into)
lines = open(out, encoding="ascii")  # noqa: SIM115


def wait() -> str:
    """How the job stopped or ended."""
    _, status = os.waitpid(job, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return f"stopped by {os.WSTOPSIG(status)}"
    code = os.waitstatus_to_exitcode(status)
    return f"ended with {code if code >= 0 else 128 - code}"


def settle() -> None:
    """Until the job's first process has taken its signals, as two of a kind would become one."""
    while True:
        with open(f"/proc/{job}/status", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        pending = int(fields["SigPnd"], 16) | int(fields["ShdPnd"], 16)
        if not pending or fields["State"].split()[0] in "TtZ":
            return
        os.sched_yield()


for step in steps.split(","):
    what, _, argument = step.strip().partition(" ")
    if what in ("type", "kill", "killpg"):
        settle()
    if what == "type":
        os.write(master, bytes.fromhex(argument))
    elif what == "hear":
        print(lines.readline().strip())
    elif what == "wait":
        print(wait())
    elif what in ("fg", "bg"):
        os.tcsetpgrp(slave, job if what == "fg" else os.getpgrp())
    else:
        {"kill": os.kill, "killpg": os.killpg}[what](job, int(argument))
