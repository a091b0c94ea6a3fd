"""Numbers that both sides must agree on or that bound what a peer can make us do.

Every constant has a name, a unit and an origin: (protocol) is fixed by docs/protocol.md and the same on all machines,
(ours) may be changed without breaking a peer.
"""

from __future__ import annotations

# Datagrams, docs/protocol.md section 2
UDP_PORT = 3010  # (protocol) the ancestor's port; CEXEC_UDP_PORT changes it
MAXIMUM_DATAGRAM = 1232  # bytes (protocol): IPv6's minimum MTU of 1280 less its headers, so never fragmented
MAXIMUM_FORWARDED = MAXIMUM_DATAGRAM + 96  # bytes (ours), on loopback only: the datagram, where it came from, a head
MAXIMUM_HOPS = 8  # relays (protocol): what a fresh announcement carries in its hop count
LOWEST_PORT = 1024  # (protocol): a worker never connects below this, so it cannot be aimed at a system service

# Announcing, section 2
ANNOUNCE_FIRST_INTERVAL = 0.25  # seconds (ours) between the first and the second copy of an announcement
ANNOUNCE_GROWTH = 1.7  # (ours) each further interval is this many times longer
ANNOUNCE_STEADY_INTERVAL = 2.0  # seconds (ours): the longest of them; a network that comes back is used this soon
ANNOUNCE_LONGEST_INTERVAL = 5.0  # seconds (protocol): workers may forget an announcement not heard for three of these
MAXIMUM_WEIGHT = 0xFFFF  # (protocol) of an announcement in the lottery of those that wait; the least is 1
QUEUED_INTERVAL = 10.0  # seconds (protocol) between two QUEUED of one worker for one announcement
QUEUED_LIFETIME = 25.0  # seconds (ours): a worker not heard from for two and a half renewals is no longer known

# Connecting, section 3
CONNECT_DEADLINE = 3.0  # seconds (protocol) for a worker's TCP connection and its first flight
GO_DEADLINE = 1.0  # seconds (protocol) that a worker keeps a slot reserved after its confirmation
MAXIMUM_UNAUTHENTICATED = 64  # connections (ours) that a client handles at once before their first flight is proved
FIRST_FLIGHT_PAYLOAD = 640  # bytes (protocol): the worker's hello, padded, so that all first flights look alike
SECOND_FLIGHT_PAYLOAD = 16  # bytes (protocol)
FIRST_REVISION = 1  # (protocol) of a connection: what version 0.1.0 of cexec speaks
SECOND_REVISION = 2  # (protocol) a record may hold several frames

# Records and frames, section 4
MAXIMUM_FRAME = 256 * 1024  # bytes (protocol), header included; measured: see docs/performance.md
RECORD_HEADER = 4  # bytes (protocol): the length of the box that follows
FRAME_HEADER = 4  # bytes (protocol): type, reserved, stream
FRAME_LENGTH = 4  # bytes (protocol): the length of a frame, before it, from the second revision on
MAXIMUM_DATA = MAXIMUM_FRAME - FRAME_HEADER  # bytes of a stream in one frame
INITIAL_WINDOW = 1024 * 1024  # bytes (protocol) a stream may carry in each direction before any credit frame
MAXIMUM_STREAMS = 1024  # (protocol) 0 to 255 are descriptors of the program, the rest are files
MAXIMUM_GO = 192 * 1024  # bytes (protocol) of arguments, peer environment and stream list together
PING_INTERVAL = 60.0  # seconds (ours) of silence after which a side asks whether the other is there
DEFAULT_IDLE_TIMEOUT = 600.0  # seconds (protocol) of silence after which a peer is dead; CEXEC_TIMEOUT_PINGPONG
LEAST_IDLE_TIMEOUT = 120.0  # seconds (ours): the ancestor's lower bound of it
MAXIMUM_TEXT = 1024  # bytes (protocol) of a reason or an error message

# Names
IDENTITY_SIZE = 16  # bytes (protocol) of a job id, of a worker's instance id, of the id of a series of alerts
FAMILY_SIZE = 8  # bytes (protocol) at the beginning of an announcement's job id
MAXIMUM_NAME = 64  # characters (protocol) of a certificate's name, a host name or an instance name
