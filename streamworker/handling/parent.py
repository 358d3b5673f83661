"""Dies with its parent, whatever the handler does at that moment."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that has started it ends. Only Linux can; elsewhere the end of the line must do."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before that. In a container it may have no number that means anything here.
    if os.getppid() != parent:
        os._exit(1)
