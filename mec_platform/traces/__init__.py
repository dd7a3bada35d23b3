"""Readers of trace files: what was measured elsewhere, for replay by the RAN adapter and in simulations.

Every reader takes a path and raises `TraceError` that names file and line; times start at zero.
"""
