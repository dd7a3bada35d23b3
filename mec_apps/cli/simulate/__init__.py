"""`mec simulate`."""
