"""`mec compile --tune`."""
