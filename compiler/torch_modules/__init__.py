"""Any torch module: a `torch.export` file, cut at named points into partitions that nodes run like decoder blocks."""
