"""`mec testbed`: real processes in network namespaces, over links that the kernel shapes, with CPU quotas it enforces."""
