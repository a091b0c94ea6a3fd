"""Who is there, docs/protocol.md section 2.6: the client's machine against workers that lose what they like."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable

import pytest

from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import ROLE_WORKER, Certificate
from cexec.protocol.datagrams import datagram, hello
from cexec.protocol.datagrams.hello import encode_answer, seal_hello
from cexec.protocol.datagrams.opened_announcement import open_announcement
from cexec.protocol.datagrams.requirements import Requirements
from cexec.protocol.decisions import census
from cexec.protocol.decisions.census import Answer, Census, explain_lacking, shown_names
from tests.protocol.census_workers import EXPIRED, KEYS, WALL, FakeWorker
from tests.protocol.wires import APPLICATION, STRANGERS, hello_of


@pytest.fixture(autouse=True)
def same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random keys would let a filter hide a worker by chance, now and then (docs/protocol.md section 2.2)."""
    monkeypatch.setattr(sodium, "random_bytes", random.Random(1).randbytes)


class Network:
    """Runs a census among workers; time is simulated."""

    def __init__(self, workers: list[FakeWorker], lost: Callable[[], bool] = lambda: False) -> None:
        self.workers = workers
        self.lost = lost
        self.now = 100.0
        self.dice = random.Random(1)
        self.sent: list[float] = []  # when each round was asked, since the start

    def take(self, **options: object) -> Census:
        taken = Census(APPLICATION.client, self.now, **options)  # type: ignore[arg-type]
        start = self.now
        coming: list[tuple[float, bytes, str]] = []
        while True:
            for data in taken.data_to_send(self.now):
                self.sent.append(round(self.now - start, 3))
                for worker in self.workers:
                    answered = None if self.lost() else worker.answer(data, self.dice)
                    if answered is not None and not self.lost():
                        coming.append((self.now + answered[0], answered[1], worker.address))
            if taken.finished:
                self.took = self.now - start
                return taken
            coming.sort()
            next_answer = coming[0][0] if coming else float("inf")
            self.now = min(next_answer, taken.next_timeout())
            while coming and coming[0][0] <= self.now:
                _, data, address = coming.pop(0)
                self.hear(taken, data, address)

    def hear(self, taken: Census, data: bytes, address: str) -> Answer | None:
        parsed = datagram.parse(data, KEYS)
        assert parsed is not None
        return taken.receive(parsed, (address, 3010), self.now, WALL + 2.0)


def fleet(count: int, **fields: object) -> list[FakeWorker]:
    return [FakeWorker(number, **fields) for number in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 8])
def test_a_few_workers_on_a_lan_are_known_within_200_ms(count: int) -> None:
    network = Network(fleet(count))
    taken = network.take()
    assert len(taken.answers) == count
    assert network.took < 0.2
    assert len(network.sent) == 2  # the second time nobody had to answer
    assert all(worker.rounds == [1] for worker in network.workers)


def test_an_answer_has_what_a_person_wants_to_know() -> None:
    network = Network(fleet(1, attributes={"os": "linux", "cpus": "4", "gpu": "a100"}, running=3))
    (answer,) = network.take().answers.values()
    assert (answer.hello.name, answer.address, answer.hello.running, answer.trouble) == ("honest", "10.0.0.1", 3, "")
    assert answer.skew == -2.0
    assert answer.labels == {"gpu": "a100"}
    named = {"name": "honest", "host": "host-1", "instance": str(uuid.UUID(int=0))}
    assert answer.attributes == {"os": "linux", "cpus": "4", "gpu": "a100", **named}
    instance = f"instance={uuid.UUID(int=0)}"
    assert answer.names == {"honest", "host-1", "10.0.0.1", "honest@10.0.0.1", instance}
    assert answer.lacking(Requirements({"gpu": "", "fpga": ""}, ["honest"])) == ["has no fpga"]


def test_nobody_is_waited_for_a_second_and_asked_four_times() -> None:
    network = Network([])
    assert network.take().answers == {}
    assert network.sent == [0.0, 0.1, 0.3, 0.6]
    assert network.took == pytest.approx(census.PATIENCE)


@pytest.mark.parametrize("loss", [10, 30])
@pytest.mark.parametrize("count", [8, 100])
def test_lost_answers_are_asked_for_again(loss: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(loss * count)
    monkeypatch.setattr(sodium, "random_bytes", random.Random(count).randbytes)
    network = Network(fleet(count), lost=lambda: dice.random() < loss / 100)
    assert len(network.take().answers) >= 0.98 * count  # who loses the last question is lost
    assert network.took < 1.0


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_workers_whose_answers_overflow_a_buffer_are_all_found(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each burst only so many answers come through; the next rounds are spread by what was learnt.

    One in thirty keys makes filters that hide so many workers by chance that one more round is needed, 3.5 s in all.
    """
    monkeypatch.setattr(sodium, "random_bytes", random.Random(seed).randbytes)
    network = Network(fleet(1000))
    arrived: list[float] = []

    def overflow(taken: Census, data: bytes, address: str) -> Answer | None:
        """Room for 150 in 10 ms."""
        if len(arrived) >= 150 and arrived[-150] > network.now - 0.01:
            return None
        arrived.append(network.now)
        return Network.hear(network, taken, data, address)

    network.hear = overflow  # type: ignore[method-assign]
    assert len(network.take().answers) == 1000
    assert network.took < 3.0
    assert max(len(worker.rounds) for worker in network.workers) < 6


def test_a_slow_network_is_waited_for() -> None:
    network = Network([*fleet(4, slow=0.3), FakeWorker(9, slow=0.75)])
    assert len(network.take().answers) == 5


def test_the_known_are_not_asked_and_the_expected_are_spread() -> None:
    network = Network(fleet(8))
    taken = network.take(known=[worker.instance for worker in network.workers[:5]], expected=1000)
    assert set(taken.answers) == {worker.instance for worker in network.workers[5:]}
    assert [len(worker.rounds) for worker in network.workers] == [0] * 5 + [1] * 3
    assert network.took > 0.3


def test_requirements_travel() -> None:
    taken = Census(APPLICATION.client, 0.0, requirements=Requirements({"gpu": ""}))
    (data,) = taken.data_to_send(0.0)
    parsed = datagram.parse(data, KEYS)
    assert parsed is not None
    assert open_announcement(APPLICATION.worker, parsed.inner).announcement.requirements.needs == {"gpu": ""}


def test_a_full_filter_beside_the_longest_requirements_fits_in_a_datagram() -> None:
    requirements = Requirements(wanted=["w" * 238, "w" * 237])
    taken = Census(APPLICATION.client, 0.0, requirements=requirements, known=[bytes([n]) * 16 for n in range(255)])
    (data,) = taken.data_to_send(0.0)
    parsed = datagram.parse(data, KEYS)
    assert parsed is not None
    asked = open_announcement(APPLICATION.worker, parsed.inner).announcement
    assert len(asked.known) == 800 - len(requirements.encode()) >= 320


def test_an_expired_certificate_is_shown_and_not_hidden() -> None:
    (answer,) = Network([FakeWorker(1, EXPIRED)]).take().answers.values()
    assert "expired" in answer.trouble and answer.hello.name == "old"


# What does not count


def asked(taken: Census) -> bytes:
    (data,) = taken.data_to_send(0.0)
    return data


def answered(data: bytes, worker: FakeWorker) -> bytes:
    found = worker.answer(data, random.Random(0))
    assert found is not None
    return found[1]


def heard(taken: Census, data: bytes) -> Answer | None:
    parsed = datagram.parse(data, KEYS)
    return None if parsed is None else taken.receive(parsed, ("10.0.0.1", 3010), 0.01, WALL)


def test_an_answer_counts_once_and_only_for_its_own_census() -> None:
    taken, other = Census(APPLICATION.client, 0.0), Census(APPLICATION.client, 0.0)
    data = answered(asked(taken), FakeWorker(1))
    asked(other)
    assert heard(other, data) is None
    assert heard(taken, data) is not None
    assert heard(taken, data) is None
    assert len(taken.answers) == 1


def test_another_purpose_and_another_kind_are_no_answer() -> None:
    taken = Census(APPLICATION.client, 0.0)
    data = asked(taken)
    parsed = datagram.parse(data, KEYS)
    assert parsed is not None
    opened = open_announcement(APPLICATION.worker, parsed.inner)
    queued = seal_hello(
        opened.handshake(), APPLICATION.worker.identity, hello_of(APPLICATION.worker, purpose=hello.QUEUED)
    )
    assert heard(taken, encode_answer(KEYS[0], parsed.mac1, queued, 8)) is None
    assert heard(taken, encode_answer(KEYS[0], parsed.mac1, b"x" * 60, 8)) is None
    assert heard(taken, encode_answer(KEYS[0], b"", b"x", 8)) is None
    assert heard(taken, data) is None
    assert taken.answers == {}


def test_a_finished_census_hears_nothing() -> None:
    taken = Census(APPLICATION.client, 0.0)
    data = answered(asked(taken), FakeWorker(1))
    while not taken.finished:
        taken.data_to_send(taken.next_timeout())
    assert heard(taken, data) is None


def test_strangers_are_not_heard() -> None:
    taken = Census(APPLICATION.client, 0.0)
    asked(taken)
    assert heard(taken, Census(STRANGERS.client, 0.0).data_to_send(0.0)[0]) is None


# Words


def answers(*described: tuple[str, str, dict[str, str]]) -> list[Answer]:
    made = []
    for number, (name, address, attributes) in enumerate(described):
        certificate = Certificate.issue(APPLICATION.owner.authority_seed, ROLE_WORKER, name, 1, b"k" * 32)
        said = hello_of(APPLICATION.worker, instance=number.to_bytes(16, "big"), attributes=attributes, host=name)
        said.certificate = certificate
        made.append(Answer(said, address, 0.0, ""))
    return made


def test_workers_that_share_a_name_are_told_apart_by_address() -> None:
    names = shown_names(answers(("a", "10.0.0.1", {}), ("b", "10.0.0.2", {}), ("a", "10.0.0.3", {})))
    assert list(names.values()) == ["a@10.0.0.1", "b", "a@10.0.0.3"]


def test_what_is_lacking_is_told_by_reason() -> None:
    found = answers(
        ("a", "10.0.0.1", {"mem": "2147483648"}),
        ("b", "10.0.0.2", {"mem": "2147483648"}),
        ("c", "10.0.0.3", {"mem": "8589934592"}),
        ("d", "10.0.0.4", {"mem": "8589934592", "gpu": "a100"}),
    )
    wanted = Requirements({"gpu": "", "mem": "4G"})
    assert explain_lacking(found, wanted) == (
        "4 workers exist; a, b: has no gpu, has mem=2G, not 4G; c: has no gpu; d: fits, but has not answered"
    )
    assert explain_lacking(found[2:3], Requirements(wanted=["x"])) == "1 worker exists; c: is not x"
    assert explain_lacking([], wanted) == ""


def test_many_reasons_and_names_are_cut() -> None:
    found = answers(*((f"n{number:02}", "10.0.0.1", {"arch": f"a{number // 10}"}) for number in range(99)))
    text = explain_lacking(found, Requirements({"arch": "z"}))
    assert text.startswith("99 workers exist; n00, n01, n02, n03 and 6 more: has arch=a0, not z; n10, ")
    assert text.endswith("; and so on") and text.count(";") == 6
