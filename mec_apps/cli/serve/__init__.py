"""`mec serve`: a module for each group of its options, and the command that puts them together."""
