"""Byte layouts as data: sizes and addresses in plain integers, asserted with an equation."""
