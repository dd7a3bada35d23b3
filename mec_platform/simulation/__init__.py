"""The control plane's decisions in a simulated world: a discrete-event model of nodes, links and requests."""
