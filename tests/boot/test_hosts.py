"""Lists of hosts: GNU parallel's sshloginfile, and words of the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.boot.hosts import Host, parse_host, read_hosts
from cexec.errors import UsageError
from cexec.protocol.base.certificate import valid_name


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("node", Host("node")),
        ("8/node", Host("node", slots=8)),
        ("root@node", Host("node", "root")),
        ("node:2222", Host("node", port=2222)),
        ("4/u.s-er@node.example:22", Host("node.example", "u.s-er", 22, 4)),
        ("@gpu/4/node", Host("node", slots=4)),
        ("10.0.0.1", Host("10.0.0.1")),
        ("fd77::1", Host("fd77::1")),
        ("[fd77::1]:22", Host("fd77::1", port=22)),
        ("root@[fd77::1]:22", Host("fd77::1", "root", 22)),
        ("fe80::1%eth0", Host("fe80::1%eth0")),
    ],
)
def test_a_host_is_read(text: str, host: Host) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-oProxyCommand=evil", "not a host"),
        ("u@-oProxyCommand=evil", "not a host"),
        ("", "not a host"),
        ("a b", "not a host"),
        ("0/node", "before the slash"),
        ("x/node", "before the slash"),
        ("9999/node", "before the slash"),
        ("node:0", "'0' is not a port"),
        ("node:65536", "is not a port"),
        ("node:ssh", "'ssh' is not a port"),
        ("node:", "'' is not a port"),
        ("a:b@node", "'a:b' is not the name of a user"),
        ("[node]", "brackets are for"),
        (":", "run cservice here"),
        ("nod\x1b[2Je", "not a host"),
    ],
)
def test_what_is_no_host_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=None) as caught:
        parse_host(text)
    assert words in str(caught.value)


@given(st.text(max_size=24))
def test_nothing_that_is_accepted_is_an_option_of_ssh(text: str) -> None:
    try:
        host = parse_host(text)
    except UsageError:
        return
    assert not host.destination.startswith("-") and not host.address.startswith("-")
    assert host.address.isascii() and host.destination.split() == [host.destination]


def test_a_file_has_comments_empty_lines_and_sets() -> None:
    lines = ["# the room", "", "  2/node[1-2]  # the old ones", "u@other:2200,third fourth", "node1"]
    hosts = read_hosts(lines, "hosts")
    assert [(host.text, host.slots, host.name) for host in hosts] == [
        ("node1", 2, "node1"),
        ("node2", 2, "node2"),
        ("u@other:2200", None, "other"),
        ("third", None, "third"),
        ("fourth", None, "fourth"),
    ]


def test_names_are_told_apart_by_port_and_user_only_where_they_must() -> None:
    hosts = read_hosts(["a", "a:22", "u@a:22", "[fd77::1]:22"], "hosts")
    assert [host.name for host in hosts] == ["a", "a-22", "a-22-u", "fd77--1"]
    assert all(valid_name(host.name) for host in hosts)


def test_two_hosts_with_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="has the name fd77--1, too"):
        read_hosts(["fd77::1", "fd77--1"], "hosts")


def test_a_mistake_is_told_with_its_place() -> None:
    with pytest.raises(UsageError, match="hosts line 2: 'node:x'"):
        read_hosts(["node", "node:x"], "hosts")
    with pytest.raises(UsageError, match="standard input names no host"):
        read_hosts(["# nothing"], "standard input")


@pytest.mark.parametrize(
    ("text", "known_as"), [("a", "a"), ("a:22", "a"), ("a:2200", "[a]:2200"), ("[fd77::1]:2200", "[fd77::1]:2200")]
)
def test_a_host_has_a_name_in_known_hosts(text: str, known_as: str) -> None:
    assert parse_host(text).known_as == known_as
