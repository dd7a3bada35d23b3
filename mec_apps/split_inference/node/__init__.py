"""The edge node: agent (process and reports), service (gRPC), data plane (frames), compute (the one thread that runs stages)."""
