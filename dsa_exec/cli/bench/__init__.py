"""The command `dsa bench`."""
