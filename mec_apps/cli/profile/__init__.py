"""`mec profile`."""
