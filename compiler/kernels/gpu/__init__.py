"""Kernels for GPUs, for the same packages as the CPU kernels beside them.

`threads` says how a kernel is written so that a CPU can run it too.
"""
