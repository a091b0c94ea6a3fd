"""Which wheels fit a host."""

from __future__ import annotations

import sys

import pytest
from packaging.tags import Tag, sys_tags

from cexec.boot.dummy_command import HostFacts
from cexec.boot.target import WheelTarget
from tests.ssh_hosts import facts_of_this_python


def facts(**changes: object) -> HostFacts:
    usual = {
        "path": "/usr/bin/python3", "version": (3, 11, 2), "system": "linux", "machine": "x86_64", "bits": 64,
        "libc": ("glibc", "2.36"), "free_threaded": False, "platform": "linux-x86_64", "mac": "", "host": "node1",
    }  # fmt: skip
    return HostFacts(**{**usual, **changes})  # type: ignore[arg-type]


def test_the_tags_of_this_python_are_those_that_packaging_finds_for_it() -> None:
    """The order decides only between wheels of one version, so the sets are compared."""
    ours = {tag for tag in WheelTarget.of(facts_of_this_python()).tags if tag.platform != "any"}
    theirs = {tag for tag in sys_tags() if tag.platform != "any"}
    assert theirs <= ours
    assert {str(tag) for tag in ours - theirs} == set()


@pytest.mark.parametrize(
    ("changes", "has", "has_not"),
    [
        (
            {},
            [
                "cp311-cp311-manylinux_2_36_x86_64",
                "cp38-abi3-manylinux2014_x86_64",
                "py3-none-any",
                "cp311-cp311-manylinux1_x86_64",
            ],
            ["cp311-cp311-manylinux_2_37_x86_64", "cp312-cp312-manylinux2014_x86_64"],
        ),
        ({"machine": "aarch64"}, ["cp311-cp311-manylinux2014_aarch64"], ["cp311-cp311-manylinux1_aarch64"]),
        (
            {"machine": "aarch64", "bits": 32},
            ["cp311-cp311-manylinux_2_31_armv7l"],
            ["cp311-cp311-manylinux2014_aarch64"],
        ),
        ({"machine": "x86_64", "bits": 32}, ["cp311-cp311-manylinux1_i686"], ["cp311-cp311-manylinux1_x86_64"]),
        (
            {"libc": ("musl", "1.2.4")},
            ["cp311-cp311-musllinux_1_2_x86_64", "cp311-cp311-musllinux_1_1_x86_64"],
            ["cp311-cp311-manylinux2014_x86_64", "cp311-cp311-musllinux_1_3_x86_64"],
        ),
        (
            {"version": (3, 13, 0), "free_threaded": True},
            ["cp313-cp313t-manylinux2014_x86_64"],
            ["cp313-cp313-manylinux2014_x86_64", "cp38-abi3-manylinux2014_x86_64"],
        ),
        ({"libc": ("", "")}, ["cp311-cp311-linux_x86_64"], ["cp311-cp311-manylinux2014_x86_64"]),
        (
            {"system": "darwin", "machine": "arm64", "mac": "14.2"},
            ["cp311-cp311-macosx_11_0_arm64", "cp38-abi3-macosx_14_0_universal2"],
            ["cp311-cp311-linux_arm64"],
        ),
        (
            {"system": "freebsd13", "platform": "freebsd-13.2-RELEASE-amd64"},
            ["cp311-cp311-freebsd_13_2_RELEASE_amd64", "py3-none-any"],
            ["cp311-cp311-manylinux2014_x86_64"],
        ),
    ],
)
def test_a_host_has_the_tags_of_its_python_libc_and_machine(
    changes: dict[str, object], has: list[str], has_not: list[str]
) -> None:
    tags = set(WheelTarget.of(facts(**changes)).tags)
    wanted = [Tag(*text.split("-")) for text in has]
    assert [str(tag) for tag in wanted if tag not in tags] == []
    assert [text for text in has_not if Tag(*text.split("-")) in tags] == []


def test_markers_are_compared_with_the_host() -> None:
    environment = WheelTarget.of(facts(machine="aarch64", version=(3, 12, 1))).environment
    assert environment["python_version"] == "3.12" and environment["platform_machine"] == "aarch64"
    assert environment["sys_platform"] == "linux" and environment["platform_system"] == "Linux"
    assert (
        WheelTarget.of(facts(system="darwin", mac="14.2", machine="arm64")).environment["platform_system"] == "Darwin"
    )


def test_pip_gets_the_same_words() -> None:
    words = WheelTarget.of(facts(libc=("glibc", "2.18"))).pip_words
    assert words[:6] == ["--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"]
    assert words[6:10] == ["--platform", "manylinux_2_18_x86_64", "--platform", "manylinux_2_17_x86_64"]
    assert "manylinux2014_x86_64" in words


def test_a_target_is_told_to_people() -> None:
    assert WheelTarget.of(facts(machine="armv7l", bits=32)).words == "Python 3.11 on armv7l (glibc 2.36)"
    assert sys.version_info >= (3, 11)
