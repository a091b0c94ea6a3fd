"""The numbers in the sentences of docs/protocol.md and docs/security.md are those of the code.

`test_document` has the tables.  A sentence here is a part of the document with the code's own values put in, so a
changed constant, and a sentence that is gone, make a test fail.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cexec.authority import exchange
from cexec.authority.words import WORDS
from cexec.client import request
from cexec.client.attempt import patience
from cexec.client.search import proofs, reception, renewal, search, trust
from cexec.logger import allowances, logger
from cexec.net import found_hosts, group_receiver, host_link, sockets
from cexec.protocol.base import keys, limits, noise, sodium
from cexec.protocol.base.certificate import GRACE, Certificate
from cexec.protocol.connection import channel, records, session_states, silence
from cexec.protocol.datagrams import alert, announcement, datagram, joining, proof
from cexec.protocol.decisions import (
    alert_delivery,
    census,
    complaints,
    ledger,
    race,
    relay_cache,
    remembered,
    rivals,
    slots,
    unproved,
    wanted_slots,
    ways,
)
from cexec.protocol.decisions.bid import LONGEST_WANTED
from cexec.relay import announcement_table, forwarder, new_addresses, relay, relayed_connection, side, splice
from cexec.system.storage import keyfile, revocations
from cexec.worker.discovery import alert_sender, heard, listener, offers
from cexec.worker.jobs import job, job_tree, jobs
from tests.protocol.test_document import written as n

DOCS = Path(__file__).resolve().parents[2] / "docs"
PROTOCOL, SECURITY = (" ".join((DOCS / name).read_text().split()) for name in ("protocol.md", "security.md"))


def ms(seconds: float) -> str:
    return n(seconds * 1000)


def certificate_size(name: str, date: int | None) -> int:
    return len(Certificate("client", name, 1, date, date, bytes(32), bytes(64)).encode())


SENTENCES = [
    # 0 Values
    f"is the ephemeral public key ({sodium.KEY_SIZE} bytes), the encrypted payload, and its tag ({noise.TAG_SIZE} "
    f"bytes): {noise.OVERHEAD} bytes more than the payload",
    # 1 Keys
    f"takes {certificate_size('a', None)} to {certificate_size('a' * limits.MAXIMUM_NAME, 1)} bytes",
    f"with {n(GRACE)} seconds of grace at either end",
    f'"cexec 1 key file", lines)`, {keys.CHECKSUM_SIZE} bytes',
    f"A file is refused if it is longer than {n(keyfile.MAXIMUM_KEY_FILE)} bytes",
    f"A file of more than {n(revocations.LARGEST_LIST)} bytes is refused",
    f"look at the file again every {n(revocations.LOOK_INTERVAL)} seconds, clients every {n(trust.WATCH_INTERVAL)} "
    "seconds while a job runs",
    # 2 Datagrams
    f"UDP, port {limits.UDP_PORT} unless `CEXEC_UDP_PORT` says otherwise, at most {n(limits.MAXIMUM_DATAGRAM)} bytes",
    f"have heard of no worker for {n(search.BROWSE_AFTER)} s",
    f"parts: `h` after the tokens `psk, e, es` ({noise.HASH_SIZE} bytes)",
    f"together are at most {n(announcement.MAXIMUM_ASKED)} bytes long",
    f"Inner part, {announcement.CLAIM_SIZE} bytes, in the clear",
    f"at most {['no', 'one', 'two'][found_hosts.MAXIMUM_PORTS]} ports of a host",
    f"share {n(found_hosts.TOTAL_RATE)} datagrams a second, {n(found_hosts.TOTAL_BURST)} at once",
    f"a worker sends it one datagram in {n(1 / found_hosts.PATIENT_RATE)} s",
    f"more than {n(LONGEST_WANTED)} counts as {n(LONGEST_WANTED)} |",
    f"again after {n(limits.ANNOUNCE_FIRST_INTERVAL)} s and then at intervals that grow by the factor "
    f"{n(limits.ANNOUNCE_GROWTH)} up to {n(limits.ANNOUNCE_STEADY_INTERVAL)} s "
    f"({n(limits.ANNOUNCE_LONGEST_INTERVAL)} s at most)",
    f"the worker keeps {['', '', '', '', 'four'][ways.MAXIMUM_WAYS]} of them",
    f"A way that was not heard for {n(ways.WAY_LIFETIME)} s",
    f"waits {n(listener.HOP_DELAY)} s longer for each relay",
    f"until it has heard no copy for {n(heard.DONE_LIFETIME)} s",
    f"(about every {n(remembered.LONGEST_RETRY)} s in the end)",
    f"a bounded number of announcements: {n(remembered.MAXIMUM_REMEMBERED)} whose clients have proved themselves (2.8) "
    f"and {n(remembered.MOST_UNPROVED)} others. If there is no room for a proved one, those that were not heard for "
    f"{n(remembered.STILL_HEARD)} s",
    f"from no worker* for {n(race.RENEW_AFTER)} s",
    f"after {n(2 * race.RENEW_AFTER)} s more, then after {n(4 * race.RENEW_AFTER)} s, and so on up to "
    f"{n(race.LONGEST_RENEWAL)} s; after a QUEUED, UNREACHABLE or REFUSED not before {n(limits.QUEUED_LIFETIME)} s, "
    f"after a PROVE not before {n(race.RENEW_AFTER)} s",
    f"answers for the {['', '', 'two'][renewal.MAXIMUM_EARLIER]} announcements that it had before",
    # 2.4 Answer
    f"A worker repeats QUEUED every {n(limits.QUEUED_INTERVAL)} s",
    f"or {n(remembered.SILENT)} s after the announcement if the client still waits",
    f"waits for {n(remembered.SILENT * 0.5)} to {n(remembered.SILENT * 1.5)} s before the first one",
    f"for {n(limits.QUEUED_LIFETIME)} s after the worker's QUEUED",
    # 2.5 Forwarded
    f"a datagram goes to {n(host_link.MAXIMUM_PEERS)} of them at most",
    f"a worker takes at most {n(listener.DOUBTED_RATE)} a second ({n(listener.DOUBTED_BURST)} at once), and a relay "
    f"one in {n(1 / side.UNBELIEVED_RATE)} s ({n(side.UNBELIEVED_BURST)} at once)",
    f"A process passes on datagrams of {datagram.INNER_START + 1} to {n(limits.MAXIMUM_DATAGRAM)} bytes",
    f"{n(group_receiver.KNOWN_RATE)} a second if it fits and {n(group_receiver.UNKNOWN_RATE)} if not, a relay "
    f"{n(side.FORWARDING_RATE)}",
    # 2.6 Census
    f"over {ms(census.SPREAD)} ms for each worker that the client expects, at most {n(census.MOST_EXPECTED)}, and at "
    f"least {ms(census.LEAST_SPREAD)} ms",
    f"asks again {ms(census.QUIET)} ms after the last one",
    f"no answer for {ms(census.WINDOW)} ms and the spread",
    "asks again after {}, {} and {} s, and is done after {} s".format(*map(n, census.REPETITIONS), n(census.PATIENCE)),
    f"No census takes more than {n(census.LONGEST)} s",
    # 2.7 Joining
    f"a number from 1 to {n(joining.LARGEST_NUMBER)} and two of {len(WORDS)} words",
    f"one guess of {n(len(WORDS) ** 2)}",
    f"A code lives for {n(exchange.LIFETIME)} s",
    f"cut into pieces of {n(joining.PIECE_SIZE)} bytes",
    f"after {n(exchange.FIRST_PAUSE)} s and then at growing intervals up to {n(exchange.LONGEST_PAUSE)} s",
    f"{n(exchange.RUN_BURST)} times at once, and keeps {n(exchange.MOST_SESSIONS)} sessions",
    # 2.8 Proof of receiving
    f"**The proof** is {proof.PROOF_SIZE} bytes",
    f"periods of {n(proof.PROOF_PERIOD)} s",
    f"at most one PROOF every {ms(proofs.INTERVAL)} ms",
    f"gets at most {n(unproved.TRIES_RATE)} unproved connections a second ({n(unproved.TRIES_BURST)} at once) and "
    f"{n(unproved.WORDS_RATE)} unproved datagrams a second ({n(unproved.WORDS_BURST)} at once), and besides "
    f"{n(unproved.ANSWERS_RATE)} REFUSED and answers to censuses ({n(unproved.ANSWERS_BURST)} at once)",
    f"for the last {n(unproved.MAXIMUM_SPENT)} announcements",
    f"one connection in {n(1 / unproved.SPARE_TRIES_RATE)} s ({n(unproved.SPARE_TRIES_BURST)} at once) and "
    f"{n(unproved.SPARE_WORDS_RATE)} datagrams in 1 s ({n(unproved.SPARE_WORDS_BURST)} at once)",
    f"or {n(limits.QUEUED_LIFETIME)} s after its QUEUED if that is later",
    # 3 Connection
    f"The worker sends {channel.FIRST_FLIGHT} bytes as soon as it is connected",
    f"only a small buffer ({n(records.FIRST_BUFFER)} bytes",
    f"{channel.SECOND_FLIGHT} bytes from the client: the second message of the same handshake. Payload, "
    f"{limits.SECOND_FLIGHT_PAYLOAD} bytes",
    f"have one deadline of {n(limits.CONNECT_DEADLINE)} s",
    f"GO comes within {n(limits.GO_DEADLINE)} s of CONFIRM",
    f"at most {n(limits.MAXIMUM_UNAUTHENTICATED)} connections at once that have not finished their flights",
    f"first flight after {n(reception.PATIENCE)} s",
    f"in all ({n(offers.MAXIMUM_OFFERS)}, of which {n(slots.MOST_TRIES)} go to clients that have not proved",
    # 4 Records, frames, streams
    f"at most one frame of {n(limits.MAXIMUM_FRAME)} bytes and a tag; in the second revision both with the "
    f"{limits.FRAME_LENGTH} bytes of the frame's length",
    f"**GO**, at most {n(limits.MAXIMUM_GO)} bytes",
    f"and have at most {request.LONGEST_VARIABLE} characters; the worker refuses",
    f"has a credit of its own: {n(limits.INITIAL_WINDOW)} bytes from GO on",
    f"keeps at most {n(limits.MAXIMUM_FRAME)} bytes of input",
    f"is at most {n(records.FIRST_BUFFER - limits.RECORD_HEADER)} bytes with its tag",
    f"nothing has come for {n(silence.QUIET)} s in the middle of a record",
    f"one of the {session_states.LATEST} before that of the next GO",
    f"1 to {n(limits.MAXIMUM_DATA)} bytes",
    f"by TERM, after {n(job_tree.GRACE)} s by KILL",
    f"Outputs and fetched files have {n(job_tree.GRACE + job.RELEASE_PATIENCE)} s more",
    f"A worker with more than {jobs.MAXIMUM_WAITING} waiting leases",
    f"was heard in the last {n(remembered.STILL_HEARD)} s (a lease need not be heard), has waited for "
    f"{n(wanted_slots.WAITED)} s",
    f"If that one has not ended after {n(wanted_slots.PATIENCE)} s",
    f"its first {limits.FAMILY_SIZE} bytes are the announcement's *family*",
    f"one record ({n(limits.MAXIMUM_FRAME + limits.FRAME_LENGTH)} bytes with the lengths of the frames)",
    f"heard nothing for {n(limits.PING_INTERVAL)} s",
    f"({n(limits.DEFAULT_IDLE_TIMEOUT)} s, at least {n(limits.LEAST_IDLE_TIMEOUT)}) is dead; only clients have this "
    f"setting, and workers wait for {n(limits.DEFAULT_IDLE_TIMEOUT)} s",
    f"TCP keep-alive after {sockets.KEEP_IDLE} s, every {sockets.KEEP_INTERVAL} s, {sockets.KEEP_COUNT} times",
    f"each side asks its own kernel every {n(silence.LOOK_INTERVAL)} s whether the last {n(silence.LONGEST_SILENCE)} s",
    f"is bounded to {records.SEND_BUFFERS} buffers. While {records.MAXIMUM_WAITING} records wait",
    # 5 Alerts
    f"often enough: {alert_delivery.TRANSMISSIONS} times, and {alert_delivery.TRANSMISSIONS_TO_LOGGERS} times once",
    f"While more than {alert_delivery.MANY_WAITING} wait and no logger",
    f"it knows the latest {n(logger.MAXIMUM_COPIES)} by mac1",
    f"at most {n(allowances.REPEATED.each[0])} times a second for each host and {n(allowances.REPEATED.total[0])} "
    "times in all",
    f"differ by less than {n(allowances.FRESH_FOR / 60)} minutes",
    f"at most {n(allowances.OLD_LINES.each[0])} times a second for each author, {n(allowances.OLD_LINES.total[0])} "
    f"times in all ({n(allowances.OLD_LINES.each[1])} and {n(allowances.OLD_LINES.total[1])} at once)",
    f"may take {n(allowances.OPENING.each[0])} of a CPU for each host and {n(allowances.OPENING.total[0])} in all, and "
    f"there are at most {n(allowances.LINES.each[0])} lines a second for each author and "
    f"{n(allowances.LINES.total[0])} in all",
    f"told by a line every {n(allowances.TELLING_INTERVAL)} s",
    f"at most {n(alert_sender.PASSING_RATE)} a second, {n(alert_sender.PASSING_BURST)} at once",
    f"at most {n(complaints.COMPLAINT_LIFETIME)} s after the attempt's end",
    f"is COMPLETED and at most {n(rivals.LIFETIME)} s old",
    f"For {n(rivals.CLAIM_LIFETIME)} s after a claim",
    # 6 Relays
    f"(4.4, {n(limits.DEFAULT_IDLE_TIMEOUT)} s) if it keeps a connection open",
    f"{n(limits.QUEUED_LIFETIME)} s after the last message of a worker (2.4)",
    f"at the first {datagram.MAC1_SIZE} bytes of the inner part",
    f"adds to the {n(listener.HOP_DELAY)} s for each relay",
    f"(the first {len(datagram.MAGIC)} bytes of 3.1)",
    f"with {relayed_connection.SECOND_FLIGHT} bytes (3.2)",
    f"its machine has acknowledged nothing for {n(silence.LONGEST_SILENCE)} s (4.4), the relay resets",
    f"PROOF | 32, and 16 for each further proof, at most {n(16 + 16 * proof.MAXIMUM_PROOFS)}",
    f"no copy with that many hops has come for {n(relay_cache.WAY_LIFETIME)} s",
    f"and again after {n(relay_cache.REPEAT_INTERVAL)} s",
    f"An answer passes once in {n(relay.ANSWER_INTERVAL)} s",
    f"Both tables hold {n(relay_cache.MAXIMUM_SEEN)} entries",
    f"({n(relay.DEFAULT_RATE)}; `--rate`)",
    f"after {n(announcement_table.LIFETIME)} s without a copy, and for {n(forwarder.REFUSAL)} s when it cannot connect",
    f"At most {n(announcement_table.MAXIMUM_ANNOUNCED)} announcements have a port, "
    f"{announcement_table.MAXIMUM_OF_HOST} of one host",
    f"within {n(limits.CONNECT_DEADLINE)} s, or within {n(forwarder.PATIENCE)} s if the relay has no room for more "
    f"connections ({forwarder.MAXIMUM_FOR_ONE} for one announcement, {n(forwarder.MAXIMUM_CONNECTIONS)} in all",
    f"to {n(new_addresses.MOST_NEW)} at once and then to one more every {n(1 / new_addresses.NEW_RATE)} s",
    f"or after {n(splice.RESET_DEADLINE)} s. A reset never becomes a clean end",
]  # fmt: skip

OF_SECURITY = [
    f"{n(unproved.TRIES_RATE)} such connections and {n(unproved.WORDS_RATE + unproved.ANSWERS_RATE)} such datagrams a "
    "second from one worker",
    f"one connection in {n(1 / unproved.SPARE_TRIES_RATE)} s and {n(unproved.SPARE_WORDS_RATE)} datagrams a second",
    f"are seldom answered, one in {n(1 / found_hosts.PATIENT_RATE)} s",
    f"try {n(new_addresses.MOST_NEW)} ports of hosts on that link, and {n(60 * new_addresses.NEW_RATE)} more a minute",
    f"A worker remembers {n(remembered.MAXIMUM_REMEMBERED)} announcements",
    f"counts as dead after {n(silence.LONGEST_SILENCE)} s",
    f"`--time-limit`, {n(patience.TIME_LIMIT_GRACE)} s later",
    f"`CEXEC_TIMEOUT_PINGPONG` ({n(limits.DEFAULT_IDLE_TIMEOUT)} s)",
    f"a worker takes {n(listener.DOUBTED_BURST)} such announcements at once, then {n(listener.DOUBTED_RATE)} a second, "
    f"and a relay {n(side.UNBELIEVED_BURST)}, then one in {n(1 / side.UNBELIEVED_RATE)} s",
    f"within {['', '', '', '', '', '', '', '', '', '', 'ten'][int(exchange.LIFETIME / 60)]} minutes",
]  # fmt: skip


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence[:40])
def test_a_sentence_of_the_protocol_has_the_numbers_of_the_code(sentence: str) -> None:
    assert PROTOCOL.count(sentence), sentence


@pytest.mark.parametrize("sentence", OF_SECURITY, ids=lambda sentence: sentence[:40])
def test_a_sentence_about_security_has_the_numbers_of_the_code(sentence: str) -> None:
    assert SECURITY.count(sentence), sentence


def test_times_that_are_written_in_words() -> None:
    """`a minute`, `five minutes`, `three times` and the like."""
    assert ledger.PATIENCE == 60.0 and "it has not come after a minute" in PROTOCOL
    assert found_hosts.FORGOTTEN_FOR == 300.0 and "forgets it for five minutes" in PROTOCOL
    assert found_hosts.FORGOTTEN_FOR_LONGEST == 3600.0 and "up to an hour" in PROTOCOL
    assert found_hosts.MOST_UNANSWERED == 6 and "at most six datagrams in 15 s" in PROTOCOL
    pauses = [found_hosts.FIRST_PAUSE * 2**n for n in range(found_hosts.MOST_UNANSWERED - found_hosts.AT_ONCE)]
    assert sum(pauses) == 15.0
    assert proofs.TIMES == 3 and "and twice more with its next announcements" in PROTOCOL
    assert remembered.QUEUED_AGAIN == 1.0 and remembered.QUEUED_REPEATS == 3
    assert re.search("still asks a second later it sends QUEUED again up to three times", PROTOCOL)
    assert listener.REFUSALS_REPEATED == 2 and "up to three times to clients of 0.1.0" in PROTOCOL
    assert exchange.FAREWELLS == 3 and "DONE three times" in PROTOCOL
    assert exchange.RUN_RATE == 2.0 and "SPAKE2 at most twice a second" in PROTOCOL
    assert relay_cache.SHARE == 0.5 and "Each host may send at most half of it" in PROTOCOL
    assert alert.COMPLAINTS[1:] == (
        "no answer", "disconnected", "protocol", "signature", "timed out", "refused", "gave up",
    )  # fmt: skip
    assert ", ".join(alert.COMPLAINTS[1:]) in PROTOCOL
