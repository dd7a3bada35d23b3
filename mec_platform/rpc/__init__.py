"""gRPC: generated stubs in `v1`, conversion to domain values in `convert`, channels and servers in `endpoints`."""
