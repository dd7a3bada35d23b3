"""Generated from `proto/`: the part of etcd's gRPC API that the platform uses."""
