"""The words and numbers that GO and SIGNAL carry: names of options, their values, shapes of streams, signals.

Contract: constants only.  Both sides take each of them from here, and nothing is imported, because every call of
`cexec` loads this module.  docs/protocol.md sections 4.2 and 4.5 say what each one means, section 8 repeats the values.
Names of a worker's attributes are in `datagrams.requirements`, sizes are in `base.limits`: layers below this one use
them, too.
"""

from __future__ import annotations

# Options of GO
LEASE = "lease"  # (protocol) YES: the client may send another job on this connection
FETCH_ON_FAILURE = "fetch-on-failure"  # (protocol) NO: files come back only if the program succeeds
TIME_LIMIT = "time-limit"  # (protocol) seconds, with or without a fraction
CPU_LIMIT = "cpu-limit"  # (protocol) whole seconds
MEMORY_LIMIT = "memory-limit"  # (protocol) bytes
NICE = "nice"  # (protocol) 0 to 19
LIMITS = (TIME_LIMIT, CPU_LIMIT, MEMORY_LIMIT, NICE)  # all of them decimal numbers
PROGRAM_STREAM = "program-stream"  # (protocol) the number of the stream that carries the program
PROGRAM = "program-"  # (protocol) followed by a platform; the value is hash and size of the program for it
TELL_WANTED = "tell-wanted"  # (protocol) YES: the client wants to hear when another one waits for the job's slot
SUBSYSTEM = "subsystem"  # (protocol) SFTP: a shell service runs that server instead of a command
TERMINAL = "terminal"  # (protocol) the program runs on a terminal; the value is a `terminal_request.TerminalRequest`

YES = "yes"  # (protocol) the value of LEASE and of TELL_WANTED
NO = "no"  # (protocol) the value of FETCH_ON_FAILURE
SFTP = "sftp"  # (protocol) the value of SUBSYSTEM

# Shapes of a stream, seen from the program
READS = 1  # a direction: the program reads
WRITES = 2  # a direction: the program writes
PIPE = 0  # a kind: the program is given a pipe
SOCKET = 1  # a kind: the program is given one end of a socketpair
FILE = 2  # a kind: the program finds, or leaves, a file with the stream's name

# Numbers of signals.  They are Linux's numbers on most machines; other systems translate.
HANGUP = 1
INTERRUPT = 2
QUIT = 3
USER_1 = 10
USER_2 = 12
TERMINATE = 15
CONTINUE = 18
SUSPEND = 20
SIGNALS = {  # (protocol) all that a client sends, with the name that the signal has in Python
    HANGUP: "SIGHUP",
    INTERRUPT: "SIGINT",
    QUIT: "SIGQUIT",
    USER_1: "SIGUSR1",
    USER_2: "SIGUSR2",
    TERMINATE: "SIGTERM",
    CONTINUE: "SIGCONT",
    SUSPEND: "SIGTSTP",
}
