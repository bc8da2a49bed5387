"""Kernels of `sparse_mla_decode` and what launches them. Importing one imports Triton."""
