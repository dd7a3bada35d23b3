"""Passes over the kernels' TIR, one per file: each takes a PrimFunc and returns another, and knows no model.

Kernels are written once, for a CPU with fused multiply-add, half floats and a cycle counter; `pipeline` says which CPU
targets lack what, and need which passes.
"""
