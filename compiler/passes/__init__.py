"""Passes over the kernels' TIR, one per file: each takes a PrimFunc and returns another."""
