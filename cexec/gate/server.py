"""Serves HTTP: sockets, uvicorn, and the order in which everything begins and ends."""
