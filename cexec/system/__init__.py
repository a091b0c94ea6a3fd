"""The only system calls of the project: sockets, descriptors, processes, key files, load, the pump."""
