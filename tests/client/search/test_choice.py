"""The user's choice of workers: options, variables, names and addresses; and one that has failed with the job."""

from __future__ import annotations

import pytest

from cexec.client.search.choice import AVOIDED_FOR, OneJob, plain_name, requirements_from
from cexec.errors import UsageError
from tests.protocol.wires import APPLICATION, hello_of, job


def test_nothing_is_asked_for_by_default() -> None:
    requirements, for_ever = requirements_from({}, {"CEXEC_ACCEPT_SERVER": " ", "CEXEC_REJECT_SERVERS": ""})
    assert not requirements and not for_ever


def test_needs_do_not_make_it_wait_for_ever() -> None:
    requirements, for_ever = requirements_from({"need": "arch=x86_64,mem=4G,gpu", "on": None, "not": ()}, {})
    assert (requirements.needs, for_ever) == ({"arch": "x86_64", "mem": "4G", "gpu": ""}, False)


def test_several_needs_add_up() -> None:
    assert requirements_from({"need": ("gpu", "mem=4G")}, {})[0].needs == {"gpu": "", "mem": "4G"}


@pytest.mark.parametrize("options", [{"on": "a,10.0.0.3"}, {"on": ("a", "10.0.0.3")}, {"on": "a 10.0.0.3,,a"}])
def test_named_workers_are_waited_for_for_ever(options: dict[str, object]) -> None:
    requirements, for_ever = requirements_from(options, {})
    assert (requirements.wanted, for_ever) == (("a", "10.0.0.3"), True)


def test_the_ancestors_variables() -> None:
    environ = {"CEXEC_ACCEPT_SERVER": "10.0.0.3", "CEXEC_REJECT_SERVERS": "b c,d", "CEXEC_REJECT_SERVER": "e"}
    requirements, for_ever = requirements_from({}, environ)
    assert (requirements.wanted, requirements.unwanted, for_ever) == (("10.0.0.3",), ("b", "c", "d", "e"), True)


def test_an_option_wins_over_its_variable() -> None:
    environ = {"CEXEC_ACCEPT_SERVER": "10.0.0.3", "CEXEC_REJECT_SERVER": "e"}
    requirements, _ = requirements_from({"on": "a", "not": "b"}, environ)
    assert (requirements.wanted, requirements.unwanted) == (("a",), ("b",))


def test_rejected_workers_are_not_waited_for() -> None:
    assert requirements_from({}, {"CEXEC_REJECT_SERVER": "e"})[1] is False


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("node1", "node1"),
        ("10.0.0.3", "10.0.0.3"),
        ("FD77:0::3", "fd77::3"),
        ("[fd77::3]", "fd77::3"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:10.0.0.3", "10.0.0.3"),  # Regression: no worker was called so
        ("[::FFFF:a00:3]", "10.0.0.3"),
        ("w@::ffff:10.0.0.3", "w@10.0.0.3"),
        ("::ffff:0:a00:3", "::ffff:0:a00:3"),
        ("::10.0.0.3", "::10.0.0.3"),
        ("node1@FD77:0::3", "node1@fd77::3"),
        ("node1@there", "node1@there"),
        ("10.0.3", "10.0.3"),
        ("a[1]", "a[1]"),
        (f"instance={'AB' * 16}", "instance=abababab-abab-abab-abab-abababababab"),
    ],
)
def test_addresses_are_compared_as_the_kernel_writes_them(written: str, plain: str) -> None:
    assert plain_name(written) == plain


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on": ""}, "--on names no worker"),
        ({"not": ",  "}, "--not names no worker"),
        ({"on": "a,b", "not": "b"}, "worker b is both"),
        ({"need": "gpu="}, "cannot understand the need"),
        ({"on": "instance=12"}, "instance '12' is no UUID"),
        ({"not": "instance="}, "instance '' is no UUID"),
        ({"on": ",".join(f"worker-number-{number}" for number in range(40))}, "longer than the 480 bytes"),
    ],
)
def test_what_cannot_be_understood_is_said(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        requirements_from(options, {})


def test_a_worker_that_has_failed_with_the_job_gets_it_only_if_no_other_takes_it() -> None:
    """One that always answers first took every attempt of a job."""
    failed, other = (hello_of(APPLICATION.worker, instance=instance) for instance in (b"a" * 16, b"b" * 16))
    choice = OneJob(lambda offer: job(), avoided={failed.instance})
    assert [choice.wants(failed, 5.0), choice.wants(other, 5.0)] == [False, True]
    assert not choice.wants(failed, 5.0 + AVOIDED_FOR - 0.1)
    assert choice.wants(failed, 5.0 + AVOIDED_FOR)
    assert OneJob(lambda offer: job()).wants(failed, 5.0)
