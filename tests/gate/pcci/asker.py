"""Asks a server over HTTP for a test, from another host: requests as JSON lines on standard input, answers on output.

Contract: a request is [method, path, body or null]; an answer is [status, value].  The arguments are the address of the
server and its token, and perhaps the authority, certificate and key for TLS.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
from typing import Any
from urllib.parse import urlsplit


def main(url: str, token: str, *tls: str) -> None:
    where = urlsplit(url)
    context = None
    if tls:
        context = ssl.create_default_context(cafile=tls[0])
        context.load_cert_chain(tls[1], tls[2])
    for line in sys.stdin:
        method, path, body = json.loads(line)
        connection: Any
        if context is None:
            connection = http.client.HTTPConnection(where.netloc, timeout=60)
        else:
            connection = http.client.HTTPSConnection(where.netloc, timeout=60, context=context)
        fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} if token else {}
        connection.request(method, path, None if body is None else json.dumps(body), fields)
        answer = connection.getresponse()
        print(json.dumps([answer.status, json.loads(answer.read())]), flush=True)
        connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
