"""The registry's changes as server-sent events: what gRPC `Watch` is, for clients that speak HTTP."""
