"""Each target over its corpus, so that what was found once stays mended and the targets do not rot."""

from __future__ import annotations

from pathlib import Path

import pytest

import tests.fuzz.every_target  # noqa: F401
from cexec.errors import ProtocolError
from tests.fuzz.seeds import CORPUS, seeds
from tests.fuzz.target import TARGETS, Target, pieces

MOST = 200_000  # bytes of all of the corpus
REFUSE_ALL = {  # nobody without more keys can make what these accept
    "signed_announcement", "signed_hello", "noise_message", "first_flight", "second_flight",
}  # fmt: skip


def corpus(name: str) -> list[Path]:
    return sorted((CORPUS / name).iterdir())


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_finds_nothing_in_its_corpus(name: str) -> None:
    found = [TARGETS[name].run(path.read_bytes()) for path in corpus(name)]
    assert found, f"{name} has no corpus"
    assert name in REFUSE_ALL or any(found), f"{name} accepts nothing of its corpus, so it tests little"


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_bears_what_is_cut_anywhere(name: str) -> None:
    for path in corpus(name)[:3]:
        data = path.read_bytes()
        for size in range(0, len(data), max(1, len(data) // 20)):
            TARGETS[name].run(data[:size])


def test_each_target_has_seeds_and_each_corpus_a_target() -> None:
    assert seeds().keys() == TARGETS.keys() == {path.name for path in CORPUS.iterdir()}


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MOST


def test_a_target_lets_through_only_what_its_contract_names() -> None:
    """The harness itself: an error that is not allowed is a finding, and so is a broken promise."""

    def refuses(data: bytes) -> None:
        raise ProtocolError("no") if data else IndexError("a bug")

    one = Target("refuses", refuses, (ProtocolError,), "")
    assert not one.run(b"x")
    with pytest.raises(IndexError):
        one.run(b"")


def test_pieces_are_cut_where_the_data_says() -> None:
    assert pieces(b"\0\1a\0\0\0\5bc") == [b"a", b"", b"bc"]
