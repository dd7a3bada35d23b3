"""Frozen values that every part of the product shares. Standard library only; no clocks, no input or output."""
