"""Triton functions that kernels of several ops share. Importing one imports Triton."""
