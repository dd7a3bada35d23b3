"""The decision code of production over a simulated world: nodes, links, requests and time are models, decisions are not.

`run` runs one policy over a scenario, `compare` several over the same world and the same random numbers. All of it is pure:
the same scenario gives the same result, to the last digit.
"""
