"""System calls that have nothing to do with the network: descriptors, processes, the host, files."""
