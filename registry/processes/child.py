"""Becomes a process of the stack: `python child.py PARENT LOG -- ARGUMENTS…`, by `exec`, with nothing left of itself.

It asks to end with its parent, which survives the `exec`, and appends what the process prints to its log. Run by path
and on the standard library alone: the code of a Bento, which may be an older one, is what comes after `--`.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    parent, log, dashes, *argv = arguments
    if dashes != "--" or not argv:
        raise SystemExit(__doc__)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        raise SystemExit("the process that started this one is gone")
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.execv(argv[0], argv)  # noqa: S606 - an argument list, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
