"""What a client asks of a worker: the text of --need, the wire form, and who fits."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import ProtocolError, UsageError
from cexec.protocol.datagrams.requirements import (
    MAXIMUM_ENCODED,
    Requirements,
    instance_name,
    instance_text,
    parse_needs,
    plain_instance,
    quantity,
    readable_size,
)
from tests.protocol.wires import cut_anywhere, hostile_bytes, mutations, texts

EXAMPLE = Requirements({"mem": "4G", "arch": "x86_64", "gpu": ""}, ["one", "10.0.0.3"], ["two"])
ATTRIBUTES = {"os": "linux", "arch": "x86_64", "cpus": "8", "mem": "8589934592", "host": "h1", "name": "n1",
              "gpu": "a100", "disk": "2T"}  # fmt: skip
ADDRESSES = ["10.0.0.3", "fd77::3"]


def fields(requirements: Requirements) -> tuple[object, ...]:
    return requirements.needs, requirements.wanted, requirements.unwanted


@pytest.mark.parametrize(
    ("text", "number"),
    [("4", 4), ("0", 0), ("1.5", 1.5), ("4K", 4096), ("2M", 2 << 20), ("1.5G", 1.5 * (1 << 30)), ("1T", 1 << 40)],
)
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["", "K", ".", "-1", "1e3", "4KB", "1.2.3", "٣", "²", "x86_64", "0x10", " 4"])
def test_what_is_no_quantity(text: str) -> None:
    assert quantity(text) is None


def test_the_text_of_need() -> None:
    assert parse_needs("arch=x86_64, mem=4G,gpu,label=a=b") == {
        "arch": "x86_64", "mem": "4G", "gpu": "", "label": "a=b",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "a,,b", "=4", "gpu=", "mem=much", "cpus=x", "mem=4GB"])
def test_a_bad_need_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="need"):
        parse_needs(text)


def test_requirements_read_back() -> None:
    data = EXAMPLE.encode()
    assert fields(Requirements.decode(data)) == fields(EXAMPLE)
    assert Requirements.decode(data).encode() == data


def test_no_requirements_are_three_bytes() -> None:
    assert Requirements().encode() == b"\0\0\0"


@given(st.dictionaries(texts, texts, max_size=4), st.lists(texts, max_size=4), st.lists(texts, max_size=4))
def test_any_requirements_read_back(needs: dict[str, str], wanted: list[str], unwanted: list[str]) -> None:
    requirements = Requirements(needs, wanted, unwanted)
    try:
        data = requirements.encode()
    except UsageError:
        return  # too long
    assert fields(Requirements.decode(data)) == fields(requirements)


def test_requirements_cut_anywhere_or_with_a_trailer_are_refused() -> None:
    data = EXAMPLE.encode()
    for bad in [*cut_anywhere(data), data + b"\0"]:
        with pytest.raises(ProtocolError):
            Requirements.decode(bad)


@given(hostile_bytes | mutations(EXAMPLE.encode()))
def test_hostile_requirements_are_protocol_errors(data: bytes) -> None:
    try:
        requirements = Requirements.decode(data)
    except ProtocolError:
        return
    assert requirements.encode() == data
    requirements.lacking(ATTRIBUTES)


def test_more_than_fits_is_told_to_the_user() -> None:
    name = "n" * 59
    fitting = Requirements(wanted=[name] * 7, unwanted=["n" * (MAXIMUM_ENCODED - 3 - 7 * 60 - 1)])
    assert len(fitting.encode()) == MAXIMUM_ENCODED
    for more in (Requirements(wanted=[name] * 8), Requirements({"x" * 300: ""}), Requirements(wanted=["a"] * 256)):
        with pytest.raises(UsageError, match="longer than the 480 bytes"):
            more.encode()
    with pytest.raises(ProtocolError, match="too long"):
        Requirements.decode(fitting.encode() + b"\0")


def test_a_name_that_is_no_text_is_told_as_such() -> None:
    with pytest.raises(UsageError, match="UTF-8"):
        Requirements(wanted=["\udcff"]).encode()


@pytest.mark.parametrize(
    ("needs", "lacking"),
    [
        ({}, []),
        ({"gpu": ""}, []),
        ({"gpu": "a100", "os": "linux"}, []),
        ({"mem": "8G", "cpus": "8"}, []),
        ({"mem": "8.1G"}, ["has mem=8G, not 8.1G"]),
        ({"cpus": "9"}, ["has cpus=8, not 9"]),
        ({"disk": "1T"}, []),  # a label that is a number: at least as much
        ({"arch": "aarch64"}, ["has arch=x86_64, not aarch64"]),
        ({"fpga": ""}, ["has no fpga"]),
        ({"fpga": "1", "os": "bsd"}, ["has no fpga", "has os=linux, not bsd"]),
    ],
)
def test_needs(needs: dict[str, str], lacking: list[str]) -> None:
    assert Requirements(needs).lacking(ATTRIBUTES) == lacking


@pytest.mark.parametrize("called", ["n1", "h1", "10.0.0.3", "fd77::3", "n1@10.0.0.3", "n1@fd77::3"])
def test_a_worker_is_wanted_or_not_by_name_host_and_address(called: str) -> None:
    assert Requirements(wanted=["elsewhere", called]).lacking(ATTRIBUTES, ADDRESSES) == []
    assert Requirements(unwanted=[called]).lacking(ATTRIBUTES, ADDRESSES) == ["is not wanted"]


@pytest.mark.parametrize("called", ["n2", "N1", "n1@10.0.0.4", "10.0.0.4", "h1@10.0.0.3", "", "@10.0.0.3"])
def test_a_worker_that_is_not_among_the_wanted_lacks_that(called: str) -> None:
    lacking = Requirements(wanted=["n9", called]).lacking(ATTRIBUTES, ADDRESSES)
    assert lacking == [f"is not n9 or {called}"]
    assert Requirements(unwanted=[called]).lacking(ATTRIBUTES, ADDRESSES) == []


INSTANCE_ID = bytes(range(0xA0, 0xB0))
UUID = "a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf"


def test_an_instance_is_a_uuid() -> None:
    assert instance_text(INSTANCE_ID) == UUID == str(uuid.UUID(bytes=INSTANCE_ID))
    for written in (UUID, UUID.upper(), UUID.replace("-", "")):
        assert plain_instance(written) == UUID


@pytest.mark.parametrize("text", ["", "a0a1", UUID[:-1], UUID + "00", UUID.replace("a0", "g0"), UUID.replace("-", " ")])
def test_what_is_no_uuid(text: str) -> None:
    with pytest.raises(UsageError, match="is no UUID: copy it from cps --json"):
        plain_instance(text)


def test_a_need_for_an_instance() -> None:
    needs = parse_needs(f"instance={UUID.upper()},gpu")
    assert needs == {"instance": UUID, "gpu": ""}
    assert Requirements(needs).lacking({**ATTRIBUTES, "instance": UUID}) == []
    assert Requirements(needs).lacking({**ATTRIBUTES, "instance": "another"}) == [f"has instance=another, not {UUID}"]
    assert Requirements(needs).lacking(ATTRIBUTES) == ["has no instance"]  # one of 0.1.0


def test_a_worker_is_called_by_its_instance() -> None:
    asked = Requirements(wanted=[instance_name(INSTANCE_ID)])
    assert asked.lacking({**ATTRIBUTES, "instance": UUID}, ADDRESSES) == []
    assert asked.lacking({**ATTRIBUTES, "instance": UUID.replace("a", "b")}) == [f"is not instance={UUID}"]
    assert asked.lacking({**ATTRIBUTES, "name": UUID, "host": UUID}) == [f"is not instance={UUID}"]
    assert Requirements(unwanted=asked.wanted).lacking({**ATTRIBUTES, "instance": UUID}) == ["is not wanted"]


@pytest.mark.parametrize(
    ("requirements", "this", "another"),
    [
        (Requirements(), True, True),
        (Requirements(wanted=["n1"]), True, True),  # the worker compares names
        (Requirements(wanted=[f"instance={UUID}"]), True, False),
        (Requirements(wanted=["n1", f"instance={UUID}"]), True, True),
        (Requirements(unwanted=[f"instance={UUID}"]), False, True),
        (Requirements({"instance": UUID}), True, False),
        (Requirements({"instance": ""}), True, True),
    ],
)
def test_the_client_admits(requirements: Requirements, this: bool, another: bool) -> None:
    assert (requirements.admits(INSTANCE_ID), requirements.admits(bytes(16))) == (this, another)


def test_a_worker_of_which_nothing_is_known_is_called_nothing() -> None:
    assert Requirements(wanted=["n1"]).lacking({}) == ["is not n1"]
    assert Requirements(wanted=[""]).lacking({}) == ["is not "]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1K"), (4 << 30, "4G"), ((4 << 30) - 1, "3.9G"), (5 << 50, "5120T")],
)
def test_sizes_are_readable_and_never_too_large(number: int, text: str) -> None:
    assert readable_size(number) == text
    assert (quantity(text) or 0) <= number


def test_only_requirements_that_ask_for_something_are_true() -> None:
    assert not Requirements()
    assert all([Requirements({"gpu": ""}), Requirements(wanted=["n1"]), Requirements(unwanted=["n1"])])
