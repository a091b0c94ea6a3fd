"""The options of cexec(1).

Contract: a table: names, what follows (empty for a flag), and the text of the help page, whose sections are in
`cexec_options`.  `commands.cexec` reads flags by it, `cexec_options` makes click's options of it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.commands.common import Option

USAGE = "cexec [OPTIONS] APP.pub [KEY=VALUE...] [-- ARG...]"
OPTIONS: tuple[Option, ...] = (  # in the order of the help page, whose sections are in `cexec_options`
    (("-n", "--no-stdin"), "", "The program's standard input is /dev/null; without -n it is read ahead."),
    (
        ("-t", "--tty"),
        "",
        "The program has a terminal; its keys are yours, and ~. on a new line leaves it (~? lists more).",
    ),
    (("-T", "--no-tty"), "", "It has none, also where its service wants one (cservice --tty)."),
    (("--hold",), "", "Keep the output back until the job has succeeded."),
    (("--keep-partial",), "", "Keep what a failed job has written to files."),
    (("--need",), "NAME[=VALUE],...", "Only workers that have this: --need arch=x86_64,mem=4G,gpu."),
    (("--on",), "NAME,...", "Only these workers, by name or address; wait for them for ever."),
    (("--not",), "NAME,...", "Not these workers."),
    (("--weight",), "N", "While jobs wait, this one's share of the turns.  [default: 1]"),
    (("--require-revoked",), "", "Trust no worker until there is a list of revoked certificates."),
    (("--all",), "", "Run the job on every worker that fits, at once, with the same input."),
    (("--tag",), "", "With --all: the worker's name in front of each line of output."),
    (("--expect",), "N", "With --all: fail unless N workers, or more, are there."),
    (("--retries",), "N", "How often the job is repeated if its worker fails.  [default: 2]"),
    (("--progress-timeout",), "TIME", "Give a worker up when no byte has come or gone for so long."),
    (("--send",), "FILE[=NAME]...", "A file that the program finds in a directory of its own."),
    (("--fetch",), "NAME[=FILE]...", "A file that the program leaves there; it comes back whole or not at all."),
    (("--no-fetch-on-failure",), "", "Fetch nothing when the program fails."),
    (("--program",), "PLATFORM=FILE...", "Run this program, where a worker allows that: linux-x86_64=./worker."),
    (("--time-limit",), "TIME", "End the program after this time: 90, 1m30s, 2h."),
    (("--cpu-limit",), "TIME", "End a process of the program that has used so much CPU time."),
    (("--memory-limit",), "SIZE", "What the program may use: 500M, 2G."),
    (("--nice",), "N", "The program's nice value, 0 to 19."),
    (("--progress",), "", "Show on the terminal how far the job is."),
    (("--explain",), "", "Tell at the end who was asked, who answered, and how long each step took."),
)
