"""The commands of `dsa config` that are built on tools, one a file."""
