"""What users write: options, variables of the environment, lists of ports, groups and tasks."""

from __future__ import annotations

from cexec.client.search.choice import requirements_from
from cexec.cmap.inputs.notation import parse_escapes, parse_percent, parse_ranges
from cexec.cmap.inputs.tables import Row
from cexec.cmap.inputs.templates import Template
from cexec.cmap.run.policy import parse_halt, parse_placement, parse_rate, parse_term_seq, parse_timeout
from cexec.commands.cmap import split_command
from cexec.commands.cservice_settings import parse_per_client
from cexec.commands.ssh_options import is_accepted, parse_call
from cexec.errors import CexecError, UsageError
from cexec.net.groups import parse_groups
from cexec.net.sockets import parse_ports
from cexec.protocol.datagrams.requirements import Requirements
from cexec.relay.networks import parse_self
from cexec.system.process.resource_limits import parse_cpu_limit, parse_memory_limit, parse_time_limit
from cexec.system.storage.eventlog import escape
from cexec.system.units import (
    LARGEST,
    LARGEST_SIZE,
    parse_duration,
    parse_number,
    parse_size,
    parse_whole,
    show_duration,
    show_short_duration,
    show_size,
)
from tests.fuzz.target import target, words


@target(UsageError)
def size(data: bytes) -> None:
    """A size: 64K, 1.5GiB."""
    found = parse_size(words(data), "--size")
    assert 1 <= found <= LARGEST_SIZE
    show_size(found)
    assert parse_size(str(found), "--size") == found


@target(UsageError)
def duration(data: bytes) -> None:
    """A duration: 1m30s."""
    found = parse_duration(words(data), "--time")
    assert 0.0 <= found <= LARGEST
    show_duration(found)
    assert parse_duration(show_short_duration(found), "--time") <= found + 1


@target()
def numbers(data: bytes) -> None:
    """Numbers and limits of options."""
    text = words(data)
    for parse in (
        lambda: parse_whole(text, "-j", 0, 9),
        lambda: parse_number(text, "--speed", 0.0, 9.0),
        lambda: parse_memory_limit(text, "--memory-limit"),
        lambda: parse_cpu_limit(text, "--cpu-limit"),
        lambda: parse_time_limit(text, "--time-limit"),
    ):
        try:
            assert parse() >= 0
        except UsageError as error:
            assert str(error).isprintable()


@target(UsageError)
def per_client(data: bytes) -> None:
    """cservice --per-client."""
    found = parse_per_client(words(data), "--per-client")
    assert any(value is not None and value > 0 for value in (found.jobs, found.places, found.files))


@target(CexecError)
def group_list(data: bytes) -> None:
    """A list of groups."""
    for entry in parse_groups(words(data)):
        assert 0 <= entry.hops <= 255 and (entry.port is None or 0 < entry.port <= 65535)
        assert isinstance(entry.loopback, bool)


@target(UsageError)
def port_list(data: bytes) -> None:
    """A list of ports."""
    assert all(1024 <= port <= 65535 for port in parse_ports(words(data)))


@target(UsageError)
def relay_self(data: bytes) -> None:
    """SELF of a relay."""
    parse_self(words(data))


@target(UsageError)
def ranges(data: bytes) -> None:
    """Ranges of rows."""
    assert all(len(one) for one in parse_ranges(words(data), "--rows"))


@target()
def policies(data: bytes) -> None:
    """--halt, --timeout, --rate, -j and --term-seq of cmap."""
    text = words(data)
    parse_percent(text)
    parse_escapes(text)
    for parse in (parse_halt, parse_timeout, parse_rate, parse_placement, parse_term_seq):
        try:
            parse(text, "--option")
        except UsageError:
            pass


@target(UsageError)
def template(data: bytes) -> None:
    """A template of arguments and names."""
    first, _, text = words(data).partition("\n")
    columns = list(dict.fromkeys(first.split(",")[:4]))
    row = Row(7, tuple(f"cell/{column}.x" for column in columns), "line", ("input",))
    made = Template(text, columns)
    assert made.used or made.render(row) == Template(text, columns).render(row)
    assert made.render_each(row)


@target(UsageError)
def cmap_command(data: bytes) -> None:
    """The words of a call of cmap."""
    given = words(data).split("\n")
    before, arguments, inputs = split_command(given)
    assert len(before) + len(arguments) <= len(given) and all(isinstance(kind, str) for kind, _ in inputs)


@target(UsageError)
def ssh_command(data: bytes) -> None:
    """The words of a call of cexec-ssh."""
    given = words(data).split("\n")
    call = parse_call(given)
    assert call.version or (call.host and not call.host.startswith("-") and call.timeout > 0.0)
    assert len(call.words) < len(given) or call.version
    assert all(map(is_accepted, call.variables({"LANG": "C", "SECRET": "1"})))


@target(UsageError)
def worker_names(data: bytes) -> None:
    """--need, --on and --not."""
    need, on, unwanted = (words(data) + "\n\n").split("\n")[:3]
    made, _ = requirements_from({"need": need or None, "on": on or None, "not": unwanted or None}, {})
    assert Requirements.decode(made.encode()).encode() == made.encode()


@target()
def log_line(data: bytes) -> None:
    """Text of a peer in a line of a log: nothing of it acts on a terminal."""
    assert escape(data.decode("utf-8", "surrogateescape")).isprintable()
