"""What reading one boolean setting costs, beside every other way to read one: `python benchmarks/config_reads.py`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # measure this checkout, whatever else is installed
    from benchmarks.reads.command import main

    sys.exit(main())
