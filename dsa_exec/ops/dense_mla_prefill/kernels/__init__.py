"""Kernels of `dense_mla_prefill` and their launchers. Importing one imports Triton."""
