"""`python -m benchmarks ops`: the ops on a GPU, checked and timed, beside the vendors'."""

import sys

from benchmarks.ops.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
