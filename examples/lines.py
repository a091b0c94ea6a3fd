"""The program of `make demo`: counts the lines of its standard input, or repeats a word.

usage: lines.py [--repeat COUNT WORD]
"""

from __future__ import annotations

import sys


def main(words: list[str]) -> int:
    if not words:
        print(f"{len(sys.stdin.readlines())} lines")
        return 0
    if len(words) != 3 or words[0] != "--repeat":
        print("usage: lines.py [--repeat COUNT WORD]", file=sys.stderr)
        return 2
    count = int(words[1])
    if count < 1:
        print(f"lines.py: cannot repeat {words[2]} {count} times", file=sys.stderr)
        return 3
    print(" ".join([words[2]] * count))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
