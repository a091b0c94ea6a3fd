"""`python -m tests.fuzz.seeds`: makes the corpus anew, from what is right and from what was wrong once.

Contract: `seeds()` gives for each target some inputs, most of them right ones, from which a fuzzer finds its way.  The
files in tests/fuzz/corpus are these, and what runs have found worth keeping; together they are small.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tempfile
from pathlib import Path

from cexec.cmap.control import control_messages as c
from cexec.cmap.results.journal import NEW, Journal
from cexec.pool import call_messages as m
from cexec.pool.interpreter import Interpreter
from cexec.protocol.base import keys, sodium
from cexec.protocol.base.certificate import ROLE_CLIENT, Certificate
from cexec.protocol.base.revocation import RevocationList, encode_list
from cexec.protocol.base.wire import Writer
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import Ending, Exit, Go, Refusal, Stream
from cexec.protocol.connection.options import FILE, READS, SOCKET, WRITES
from cexec.protocol.datagrams import alert, datagram, forwarded, joining, presence
from cexec.protocol.datagrams.alert import Acknowledgement, Alert
from cexec.protocol.datagrams.announcement import CENSUS, SealedAnnouncement
from cexec.protocol.datagrams.client_jobs import ClientJob, encode_jobs
from cexec.protocol.datagrams.hello import QUEUED, encode_answer, seal_hello
from cexec.protocol.datagrams.presence import Presence
from cexec.protocol.datagrams.requirements import Requirements
from cexec.worker.jobs import reports
from tests.fuzz.host_seeds import host_seeds
from tests.protocol.wires import APPLICATION, INSTANCE, JOB_ID, hello_of, job

CORPUS = Path(__file__).parent / "corpus"
NFT = {
    "nftables": [
        {"metainfo": {"json_schema_version": 1}},
        {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "type": "filter", "hook": "input",
                   "prio": 0, "policy": "drop"}},
        {"chain": {"family": "ip", "table": "filter", "name": "more"}},
        {"set": {"family": "ip", "table": "filter", "name": "ports", "elem": [22, {"range": [3000, 3020]}]}},
        {"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "expr": [
            {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, {"accept": None}]}},
        {"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "comment": "c", "expr": [
            {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": {"set": ["established"]}}},
            {"counter": {"packets": 1, "bytes": 2}}, {"jump": {"target": "more"}}]}},
        {"rule": {"family": "ip", "table": "filter", "chain": "more", "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": "@ports"}},
            {"drop": None}]}},
    ]
}  # fmt: skip


def piece(*parts: bytes) -> bytes:
    """Parts as `target.pieces` takes them apart."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def _datagrams(sealed: SealedAnnouncement) -> list[bytes]:
    key, worker = APPLICATION.client, APPLICATION.worker
    message = seal_hello(APPLICATION.hear(sealed).handshake(), worker.identity, hello_of(worker, purpose=QUEUED))
    said = presence.seal(worker, _presence())
    return [
        sealed.datagram(1, 4000, 8),
        sealed.claim(3, 8),
        encode_answer(key.mac1_key, sealed.mac1, message, hops=8),
        alert.encode_alert(worker, _alert(), 8),
        alert.encode_acknowledgement(key, _acknowledgement(), 8),
        presence.encode_presence(key.mac1_key, said, 8),
    ]


def _alert() -> Alert:
    return Alert(
        outcome=alert.COMPLETED, certificate=APPLICATION.worker.identity.certificate, job_id=JOB_ID, attempt=1,
        client_name="default", client_address="10.0.0.1", worker_name="honest", worker_address="10.0.0.2",
        sequence=7, running=[3, 5], status=3, duration=1500, received=10, sent=20,
    )  # fmt: skip


def _acknowledgement() -> Acknowledgement:
    return Acknowledgement(certificate=APPLICATION.client.identity.certificate, series=bytes(16), sequences=[1, 2, 3])


def _presence() -> Presence:
    certificate = APPLICATION.worker.identity.certificate
    return Presence(purpose=1, instance=INSTANCE, sequence=1, clock=5, host="host-1", certificate=certificate)


def _jobs() -> list[Go]:
    files = [Stream(256, READS, FILE, name="in/a.wav"), Stream(257, WRITES, FILE, name="out")]
    full = job(
        streams=[Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES, same_as=1), Stream(3, 3, SOCKET), *files],
        arguments=[b"-Q", b"\xff"], environment={"A": b"1", "B": b""},
        options={"lease": "yes", "time-limit": "1.5", "memory-limit": "100000000", "program-stream": "256",
                 "program-linux-x86_64": f"{'0a' * 32} 100"},
    )  # fmt: skip
    return [job(streams=[]), job(), full]


def _running() -> list[ClientJob]:
    return [ClientJob("alice", "10.0.0.1", 7), ClientJob("", "fe80::1", 100_000), ClientJob("\u00fc", "10.0.0.2", 0)]


def _exit() -> bytes:
    endings = [Ending(1, WRITES, frames.ENDED, 1), Ending(2, WRITES, frames.ENDED, 0),
               Ending(0, READS, frames.READER_CLOSED, 0)]  # fmt: skip
    return Exit(kind=frames.EXITED, status=3, endings=endings, user_time=9, memory=100, message="m").encode()


def _protocol() -> dict[str, list[bytes]]:
    sealed = APPLICATION.announce(requirements=Requirements({"gpu": "", "mem": "1G"}, ["one"], ["two"]))
    census = APPLICATION.announce(kind=CENSUS, known=[INSTANCE])
    datagrams = _datagrams(sealed)
    hello_body = hello_of(
        APPLICATION.worker, attributes={"os": "linux", "once": ""}, detail="d", version="1.0", load=0.5, clock=9
    ).encode()
    worker_frames = [
        frames.frame(frames.STARTED, b"\0"), frames.frame(frames.DATA, b"x", 1),
        frames.frame(frames.END, (1).to_bytes(8, "big"), 1), frames.frame(frames.END, bytes(8), 2),
        frames.frame(frames.EXIT, _exit()), frames.frame(frames.CONFIRM),
    ]  # fmt: skip
    asked = [worker_frames[0], frames.frame(frames.WANTED), *worker_frames[1:]]
    client_frames = [
        frames.frame(frames.GO, job().encode()), frames.frame(frames.DATA, b"in", 0),
        frames.frame(frames.END, (2).to_bytes(8, "big"), 0), frames.frame(frames.CLOSED, bytes(8), 1),
        frames.frame(frames.CREDIT, bytes(4), 2), frames.frame(frames.SIGNAL, b"\x0f"),
        frames.frame(frames.WINDOW, bytes(4)), frames.frame(frames.PING), frames.frame(frames.CANCEL),
    ]  # fmt: skip
    seed = bytes(32)
    dated = Certificate.issue(seed, ROLE_CLIENT, "alice", 7, sodium.signing_public_key(seed), 1, 2**40)
    return {
        "outer_part": datagrams[:3],
        "right_mac1": [data[datagram.KIND_AT : datagram.KIND_AT + 1] + data[28:] for data in datagrams],
        "forwarded_datagram": [forwarded.wrap(datagrams[0], ("10.0.0.1", 4000)),
                               forwarded.wrap(datagrams[1], ("fe80::1", 4000, 0, 2))],
        "proofs": [sealed.mac1 + bytes(32), sealed.mac1 + bytes(17)],
        "relayed_datagram": datagrams,
        "claim": [datagrams[1][28:]],
        "instance_filter": [census.announcement.known, b"", bytes(20)],
        "first_flight": [b"\xcexec\1\0\0\0" + bytes(range(200)), b"GET / HTTP/1.1\r\n", b"\xcexec\2"],
        "second_flight": [bytes(range(64)), b""],
        "noise_message": [sealed.inner[:100]],
        "values": [bytes(8) + bytes(8), bytes([0, 1, 2, 3, 4, 5, 8, 9]) + bytes(15) + b"\1a\0\1b\1\1c\1d\0\0"],
        "certificate": [APPLICATION.client.identity.certificate.encode(), dated.encode()],
        "announcement": [sealed.announcement.encode(), census.announcement.encode()],
        "signed_announcement": [sealed.announcement.encode() + bytes(64)],
        "requirements": [sealed.announcement.requirements.encode(), Requirements().encode()],
        "hello": [hello_body],
        "signed_hello": [bytes(Writer().long_bytes(hello_body)) + bytes(64)],
        "alert": [_alert().encode()],
        "acknowledgement": [_acknowledgement().encode()],
        "presence": [_presence().encode()],
        "go": [one.encode() for one in _jobs()],
        "terminal_request": [b"24 80 xterm-256color eof=4 erase=127 intr=3 ixon=1 utf8=1", b"0 0 dumb", b"1 1 x a=01"],
        "screen": [piece(b"\x1b[?1049h\x1b[?25l\x1b[1;5r", b"\x1b[?10", b"00;1006h\x1b=", b"\x1b[>4;2m\x1b[>1u\x1bc")],
        "exit_frame": [_exit()],
        "refusal": [Refusal(frames.HERE, "no such file").encode()],
        "frame": [frames.frame(frames.DATA, b"x", 1), frames.frame(frames.PING)],
        "frames_of_a_client": [bytes([stage]) + piece(*client_frames[stage > 1 :]) for stage in range(4)],
        "frames_of_a_worker": [
            *(bytes([stage]) + piece(*worker_frames[stage > 2 :]) for stage in range(4)),
            *(bytes([12 + stage]) + piece(*asked[stage > 2 :]) for stage in range(4)),
        ],
        "records": [bytes([0, 0, 0, 40]) + bytes(30), bytes([0, 0, 0, 40]) + bytes(40), bytes([0, 0, 15, 255])],
        "packed_record": [b"".join(len(one).to_bytes(4, "big") + one for one in client_frames), bytes(8)],
        "jobs_of_clients": [encode_jobs(_running(), 255).encode(), b"7\t10.0.0.1\ta\n\n9\t\n9999999999\t\t"],
        "needs": [b"mem=4G\ngpu\narch=x86_64,cpus=2.5"],
    }  # fmt: skip


def _key_files() -> list[bytes]:
    owner = APPLICATION.owner
    made: list[keys.Key] = [owner, owner.client_key(), APPLICATION.worker, owner.relay_key()]
    return [keys.encode_key(key).encode() for key in made]


def _journal_file() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "state"
        Journal(str(path), NEW, now=0.0).close()
        database = sqlite3.connect(path)
        database.execute("PRAGMA journal_mode=DELETE")
        database.close()
        return path.read_bytes()


def _without_checksum(text: bytes) -> bytes:
    return b"".join(line for line in text.splitlines(keepends=True) if not line.startswith((b"#", b"checksum")))


def _files() -> dict[str, list[bytes]]:
    record = {"mark": "CEXEC_MARK=0-0", "leader": 5, "start": 6, "directory": "/tmp/cexec-job-x", "group": ""}
    statuses = [b'{"total": 5, "leases": 2, "workers": 1, "paused": false}', b'{"leases": 2}', b'{"paused": true}']
    return {
        "key_file": _key_files(),
        "key_file_with_its_checksum": [_without_checksum(text) for text in _key_files()],
        "parameter_table": [
            b'a,b\n1,2\n"x\ny",3\n',
            b"a\tb\n1\t2\n",
            b"a|b\n1 | 2\n",
            b'{"a": 1, "b": [1, "\\u0041"]}\n',
        ],
        "record_of_a_job": [json.dumps(record).encode() + b'\n{"directory": 1}\n', b"[[[[[[[[[[[[", b'{"group": null}'],
        "series": [bytes(16) + (7).to_bytes(8, "big"), b"\xff" * 24, b"short"],
        "status_of_a_run": [
            *(b"process 1 on HERE\n" + status for status in statuses),
            b"process 7 on elsewhere\n" + statuses[0],
            b"\n" + statuses[0],
            b"\n[]",
            b"\n{",
            b"process 99999999999 on HERE\n{}",
            "process \u00b2 on HERE\n{}".encode(),
        ],
        "journal": [_journal_file()[:4096], b"SQLite format 3\0", b""],
    }


def _system() -> dict[str, list[bytes]]:
    lines = b"-P INPUT DROP\n-N more\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p udp -m multiport --dports 1,3:9 -j more\n"
    proc = piece(
        b"0::/a/b\n5:cpu,cpuacct:/c\n", b"cpu  1 2 3 4 5 6 7 8\ncpu0 1 2 3 4 5 6 7 8\n", b"0.1 0.2 0.3 2/500 77\n",
        b"MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable: 50 kB\n", b"some avg10=0.00 total=12345\n",
        b"model name\t: x\n", b"50000 100000\n", b"usage_usec 5\n", b"1000000\n",
    )  # fmt: skip
    taken = reports.Taken(bytes(16), 1, hears=True)
    finished = reports.JobFinished(0, 1, 2, 0.5, "", 1.5, True, True)
    return {
        "nft_listing": [json.dumps(NFT).encode(), b"[" * 5000, b'{"nftables": [{"rule": {"expr": 1}}]}'],
        "iptables_listing": [
            lines,
            b'-A INPUT -m comment --comment "a \\" b" ! -p tcp --dport 99999999999999999999 -j DROP\n',
        ],
        "proc_files": [proc, piece("0::/²".encode(), b"cpu " + b"9" * 5000, b"a b c d/e", b"MemTotal: 1")],
        "load_of_a_command": [b"0.5\n", b" 1e-3 more", b"1_0", b"nan", b"-0", b"1e999", b"\xff\x1b[2J", b""],
        "mdns_entries": [b"+ 10.0.0.1 0 3010\n+ fe80::1 2 3010\n- 10.0.0.1 0 3010", b"+ x", b"+ 10.0.0.1 a b"],
        "netlink_dump": [
            (32).to_bytes(4, "little") + (16).to_bytes(2, "little") + bytes(26),
            b"\x10\0\0\0\2\0" + bytes(14),
        ],
        "notes_of_a_process": [piece(b"a report", b"another"), bytes.fromhex("01000000 0100 00000000 61")],
        "report_of_a_process": [reports.encode(one) for one in (taken, finished, reports.Idle(), reports.Broken("r"))],
    }


def _texts() -> dict[str, list[bytes]]:
    return {
        "size": [b"64K", b"1.5GiB", b"500MB", b"1iB", b"65536"],
        "duration": [b"1m30s", b"10", b"500ms", b"2h", b"1d2h3m4s5ms", b"1m30"],
        "numbers": [b"3", b"0.5", b"64M", b"1m30s"],
        "group_list": [b"10.0.0.255,239.1.2.3%eth0:3010/8", b"[ff02::77%eth0]:3010/8,mdns,name.example:3011"],
        "port_list": [b"4000,4001,5000:5009", b"1024"],
        "relay_self": [b"eth0:10.0.0.1", b"[fe80::1]", b"10.0.0.1"],
        "ranges": [b"1-100:5,200", b"7"],
        "per_client": [b"4", b"jobs=4,places=2,files=20G", b"files=1M"],
        "policies": [b"soon,fail=30%", b"now,success=1", b"10%", b"5/1m", b"TERM,200,KILL,25", b"x2", b"\\x41\\n"],
        "template": [b"a,b\n{a}/{b.}-{/}-{#}", b"x\n{1} {x//} {"],
        "cmap_command": [b"-j\n4\napp.pub\n--\n{}\n:::\na\nb\n:::+\nc\nd", b":::\n--\n::::"],
        "ssh_command": [
            b'-Cqtt\n-oConnectTimeout=1m3\n-o\nSendEnv=L* "?"\nbob@w\n-p\n22\n--\nls\n-l',
            b"-V",
            b"-s\n--\nw\nsftp",
            b"ssh://bob@[fe80::1]:22/\n-n",
            b"-oSetEnv=LANG=C X=1\nw",
        ],
        "worker_names": [b"mem=4G,gpu\na,10.0.0.1\nb@fe80::1%eth0", b"\n,"],
        "log_line": [b"a\x1b[2Jb", b'\xff "q" = \\'],
    }


def _owners() -> dict[str, list[bytes]]:
    owner, session, element = APPLICATION.owner, bytes(range(16)), b"A" * joining.ELEMENT_SIZE
    revoked = RevocationList(owner.authority_public, owner.fingerprint, 7, {1: "default", 99: "?"})
    text = encode_list(revoked, owner.authority_seed).encode()
    messages: list[joining.JoinMessage] = [
        joining.Seek(session, 47, element), joining.Found(session, element), joining.TakerProof(session, bytes(32)),
        joining.GiverProof(session, bytes(32), 3), joining.Ask(session, 1, bytes(32)),
        joining.Piece(session, 1, b"data"), joining.Done(session, bytes(32)),
    ]  # fmt: skip
    datagrams = [joining.encode_message(message) for message in messages]
    return {
        "revocation_list": [text, b"cexec-revoked: 1\n"],
        "signed_revocation_list": [text.rpartition(b"signature")[0]],
        "record_of_issues": [b"# c\nissued client laptop 77 5 -\nissued worker box 78 5 6\nrevoked 77 1 9\nrevoked 7"],
        "joining_code": [b"47-acid-badge", b" 1 ACID acid\n", b"0-acid-acid"],
        "joining_datagram": datagrams,
        "joining_exchange": [piece(*(one[6:7] + one[23:] for one in datagrams)), piece(*datagrams)],
    }


def _calls() -> dict[str, list[bytes]]:
    digest = hashlib.sha256(b"array").digest()
    messages = [
        b"".join(m.encode(kind, 7, 9, [b"part", b"", b"x" * 100][: max(2, m.LEAST_PARTS.get(kind, 0))]))
        for kind in sorted(m.KINDS)
    ]
    long = b"".join(m.encode(m.RESULT, 7, 9, [b"p", bytes(m.SMALL - 100)]))
    array = b"".join(m.encode(m.ARRAY, 5, 0, [b"array", digest]))
    liar = m.HEADER.pack(m.RESULT, 1, 7, 9) + (1 << 62).to_bytes(8, "big")
    return {
        "messages_of_a_pool": [
            piece(*messages[:5]), piece(*messages[9:]), piece(long[:50], long[50:2000]), piece(liar),
        ],
        "hello_of_a_pool": [Interpreter("3.11.2", "3.0.0", "little", "0.1.0", 7).encode(), b"[" * 2000],
        "array_of_a_client": [
            piece(array, b"".join(m.encode(m.DROP_ARRAY, 5))), piece(array[:30], array[30:]), piece(array[:-1] + b"x"),
        ],
    }  # fmt: skip


def _gates() -> dict[str, list[bytes]]:
    job = {
        "app": "a", "args": ["x", "\u00fc"], "env": {"A": ""}, "stdin": {"base64": "eA=="}, "files": {"a/b": "c"},
        "fetch": ["d"], "needs": ["mem=4G"], "exclude": ["w"], "workers": "all", "time_limit": 1.5, "retries": 0,
        "weight": 2,
    }  # fmt: skip
    requests = [c.ControlRequest(c.ControlAction.STATUS), c.ControlRequest(c.ControlAction.WEIGHT, 7)]
    status = c.ControlStatus(
        pid=7, paused=True, paused_seconds=0.5, ending=False, weight=3, running=1, given=0, waiting=None, leases=1,
        workers=1, tasks=(9,),
    )  # fmt: skip
    replies: list[c.ControlStatus | c.ControlRefusal] = [
        status,
        c.ControlRefusal("the run is about to end"),
        c.ControlRefusal("no", denied=True),
    ]
    streamed = {"app": "a", "stdin": {"stream": True}, "workers": ["w"]}
    return {
        "job_request": [json.dumps(one).encode() for one in (job, {**streamed, "workers": "any"}, streamed)]
        + [b'{"app": "\\ud800"}', b'{"app": "a", "time_limit": 5e-324}', b"[" * 2000, b'{"app": NaN}'],
        "control_request": [*(piece(c.encode_request(one)) for one in requests), piece(b'{"action":', b'"pause"}\n')],
        "control_reply": [piece(c.encode_reply(one)) for one in replies],
        "byte_range": [b"bytes=0-9", b"bytes=5-", b"bytes=-5", b"bytes=9-1", b"bytes=2000-", b"bytes=0-1,2-3"],
    }


def seeds() -> dict[str, list[bytes]]:
    """Returns the inputs of each target."""
    return {**_protocol(), **_files(), **_system(), **_texts(), **_owners(), **_calls(), **_gates(), **host_seeds()}


def main() -> None:
    for name, inputs in seeds().items():
        directory = CORPUS / name
        directory.mkdir(parents=True, exist_ok=True)
        for data in inputs:
            (directory / hashlib.sha1(data).hexdigest()[:12]).write_bytes(data)


if __name__ == "__main__":
    main()
