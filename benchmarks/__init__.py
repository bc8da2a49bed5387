"""Benchmarks, each a program of its own beside this file."""
