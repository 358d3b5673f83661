"""What a worker starts: `python -m streamworker.handling DESCRIPTOR`, with its end of the line as that file descriptor."""

from __future__ import annotations

import sys

from streamworker.handling.serving import serve

if __name__ == "__main__":
    serve(int(sys.argv[1]))
