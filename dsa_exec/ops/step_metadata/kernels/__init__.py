"""Kernels of `step_metadata` and what launches them. Importing a file of this folder imports Triton."""
