"""`python -m benchmarks COMMAND`: benchmarks that check before they time."""

import sys

from benchmarks.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
