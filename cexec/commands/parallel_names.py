"""Names the option of cmap for each option of GNU parallel that is called something else here.

Contract: `PARALLEL_NAMES` has for each name what an error line says that it is here.  Each is in the row of
docs/cmap-for-parallel-users.md that compares the two; what cmap has nothing for is in that page only.
"""

from __future__ import annotations

_SAME = {  # of cmap: other names in parallel
    "--colsep": ("-C",),
    ":::+": ("--link", "--xapply"),
    "--params": ("--csv",),
    "--order random": ("--shuf",),
    "-n": ("-N", "--max-replace-args", "-L", "--max-lines", "-l", "-X", "-m", "--xargs", "-s", "--max-chars"),
    "--pipe": ("--spreadstdin",),
    "--block": ("--block-size",),
    "--rpl": (
        "-I", "--replace", "-i", "--extensionreplace", "--er", "--basenamereplace", "--bnr",
        "--basenameextensionreplace", "--bner", "--dirnamereplace", "--dnr", "--seqreplace", "--slotreplace",
    ),
    "--peer V={%}": ("--process-slot-var",),
    "--peer": ("--env",),
    "--send": ("--transferfile", "--tf", "--transfer", "--basefile", "--bf"),
    "--fetch": ("--return", "--trc"),
    "--input": ("--template", "--tmpl"),
    "cservice --private-dir": ("--workdir", "--wd"),
    "the default": ("--group", "--no-keep-order"),
    "--line-buffer": ("--lb", "--ungroup", "-u"),
    "--results": ("--res",),
    "--stdout '{#}.out'": ("--files", "--output-as-files", "--outputasfiles"),
    "--halt": ("--halt-on-error",),
    "--term-seq": ("--termseq",),
    "--joblog": ("--jl",),
    "-j": ("-P", "--max-procs"),
    "--on, --not and --need": (
        "-S", "--sshlogin", "--sshloginfile", "--slf", "--filter-hosts", "--hostgroups", "--hgrp",
    ),
    "cexec --all": ("--onall", "--nonall"),
    "--weight": ("--semaphore", "--semaphore-name", "--id", "--semaphore-timeout", "--st"),
    "--dry-run": ("-v", "--verbose", "-t"),
}  # fmt: skip
PARALLEL_NAMES = {name: ours for ours, names in _SAME.items() for name in names}
