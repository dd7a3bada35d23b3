"""gRPC `ServiceRegistry`: the same registry as Mp1, for consumers, schedulers and other hosts that speak no REST."""
