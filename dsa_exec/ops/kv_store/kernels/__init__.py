"""Kernels of `kv_store` and what launches them. Importing a file of this folder imports Triton."""
