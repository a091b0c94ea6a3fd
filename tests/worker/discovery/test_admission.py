"""Which clients a worker serves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cexec.errors import CertificateError, RevokedError
from cexec.protocol.base.keys import OwnerKey
from cexec.protocol.base.revocation import RevocationList, encode_list
from cexec.system.storage.revocations import LOOK_INTERVAL, Revocations
from cexec.worker.discovery.admission import Admission

OWNER = OwnerKey(b"s" * 32)
NOW = 1_800_000_000.0
LAPTOP = OWNER.issue_client("laptop", 7).identity.certificate
PHONE = OWNER.issue_client("phone", 8).identity.certificate
EXPIRED = OWNER.issue_client("old", 9, not_after=int(NOW) - 1000).identity.certificate


def test_without_anything_said_all_valid_certificates_are_served() -> None:
    admission = Admission()
    admission.check(LAPTOP, NOW)
    with pytest.raises(CertificateError, match="certificate of old expired on"):
        admission.check(EXPIRED, NOW)
    assert (admission.problem, admission.warning, admission.refresh(1e9)) == ("", "", False)
    assert not admission.revoked(LAPTOP)


@pytest.mark.parametrize(
    ("patterns", "served"),
    [(["laptop"], True), (["lap*"], True), (["l?ptop"], True), (["[kl]aptop"], True), (["x", "*top"], True),
     (["LAPTOP"], False), (["lap"], False), (["*tops"], False), (["x", "y"], False), ([""], False)],
)  # fmt: skip
def test_a_name_must_fit_one_of_the_patterns(patterns: list[str], served: bool) -> None:
    admission = Admission(patterns)
    if served:
        admission.check(LAPTOP, NOW)
    else:
        with pytest.raises(CertificateError, match="this worker does not serve the client laptop"):
            admission.check(LAPTOP, NOW)


def test_a_listed_certificate_is_refused_whatever_its_name_and_jobs_end_only_for_that(tmp_path: Path) -> None:
    path = tmp_path / "app.revoked"
    revocations = Revocations(os.fspath(path), OWNER.authority_public, directory=os.fspath(tmp_path / "state"))
    admission = Admission(["*"], revocations)
    admission.check(LAPTOP, NOW)
    listed = RevocationList(OWNER.authority_public, OWNER.fingerprint, 1, {7: "laptop"})
    path.write_text(encode_list(listed, OWNER.authority_seed))
    assert admission.refresh(LOOK_INTERVAL)
    with pytest.raises(RevokedError, match=r"certificate of laptop \(serial 7\) is revoked"):
        admission.check(LAPTOP, NOW)
    admission.check(PHONE, NOW)
    assert (admission.revoked(LAPTOP), admission.revoked(PHONE)) == (True, False)
    path.write_text("half")
    assert admission.refresh(2 * LOOK_INTERVAL)
    with pytest.raises(RevokedError, match="no certificate is accepted"):
        admission.check(PHONE, NOW)
    assert "is damaged" in admission.problem
    assert (admission.revoked(LAPTOP), admission.revoked(PHONE)) == (True, False)
