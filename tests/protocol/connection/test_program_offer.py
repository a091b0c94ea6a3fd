"""Programs as the options of GO name them."""

from __future__ import annotations

import pytest

from cexec.protocol.connection.program_offer import ProgramOffer, choose, encode, is_option, is_platform, parse

HASH = "0123456789abcdef" * 4
OFFERS = [ProgramOffer("linux-x86_64", HASH, 7), ProgramOffer("any", HASH, 8)]


def test_offers_read_back() -> None:
    options = encode(OFFERS, 256)
    assert options == {"program-stream": "256", "program-linux-x86_64": f"{HASH} 7", "program-any": f"{HASH} 8"}
    found = parse(options | {"nice": "3"})
    assert found is not None
    number, offers = found
    assert (number, [(one.platform, one.hash, one.size) for one in offers]) == (
        256, [("linux-x86_64", HASH, 7), ("any", HASH, 8)],
    )  # fmt: skip
    assert parse({"nice": "3"}) is None


@pytest.mark.parametrize(
    "options",
    [
        {"program-stream": "256"},
        {"program-any": f"{HASH} 7"},
        {"program-stream": "x", "program-any": f"{HASH} 7"},
        {"program-stream": "256", "program-any": f"{HASH} -7"},
        {"program-stream": "256", "program-any": f"{HASH}"},
        {"program-stream": "256", "program-any": f"{HASH[1:]}G 7"},
        {"program-stream": "256", "program-any": f"{HASH} 99999999999"},
    ],
)
def test_what_is_no_offer_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="program"):
        parse(options)


def test_the_own_platform_comes_before_any() -> None:
    assert [choose(OFFERS, name) for name in ("linux-x86_64", "linux-riscv64")] == OFFERS
    assert choose(OFFERS[:1], "linux-riscv64") is None


def test_names_of_platforms() -> None:
    assert all(map(is_platform, ["linux-x86_64", "any", "darwin-arm64"]))
    assert not any(map(is_platform, ["", "linux", "-", "linux-", "a b-c", "stream"]))
    assert is_option("program-any") and not is_option("program-x") and not is_option("nice")
