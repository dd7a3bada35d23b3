"""The registry's records, to be read: in full, and as data types of 3GPP show them."""
