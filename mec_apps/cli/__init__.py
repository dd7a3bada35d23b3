"""The `mec` command: each command parses into one typed request and calls one function."""
