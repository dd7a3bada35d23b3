"""The event log in etcd, for platform replicas that share their state; and what comes with a store they all reach."""
