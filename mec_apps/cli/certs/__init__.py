"""`mec certs`: a certificate authority of one's own for a platform and its clients."""
