"""The command `dsa run`."""
