"""Monitoring & Capacity Profiling: `estimates` (pure) and the gRPC service `CapacityProfiler`."""
