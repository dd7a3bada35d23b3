"""What this host knows of the time: whether its clock is synchronised, and by which servers."""
