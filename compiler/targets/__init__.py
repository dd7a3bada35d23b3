"""The hardware that the compiler knows, as data. `row` says what a target is, `cpu` and `gpu` hold the rows, `choice` finds one.

Importable without TVM: an edge node uses it to say what it is.
"""
