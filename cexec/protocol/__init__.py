"""Pure machines: bytes and a clock value in, events and bytes out.  No module here names a socket or a clock."""
