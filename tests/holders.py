"""Holders of single keys of one application, as `ckeygen --client` and `ckeygen --worker` make them, for tests.

Contract: an `Authority` issues and revokes in a directory of its own; each `Holder` has its key in a directory of its
own, to which `deliver` copies the latest list of revoked certificates as an owner would.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cexec.protocol.base.keys import ClientKey, WorkerKey
from cexec.system.storage.keyfile import read_key
from tests.environment import clean_environment, command
from tests.service import Application


class Holder(Application):
    """One machine: its key file, beside which the list is, and its memory of the lists that it has seen."""

    def __init__(self, directory: Path, file: str) -> None:
        directory.mkdir()
        self.directory = directory
        self.secret = self.public = directory / file
        self.environment = {"XDG_STATE_HOME": os.fspath(directory / "state")}

    @property
    def serial(self) -> int:
        key = read_key(os.fspath(self.public), (ClientKey, WorkerKey))
        assert isinstance(key, ClientKey | WorkerKey)
        return key.identity.certificate.serial

    @property
    def list(self) -> Path:
        """Where its list of revoked certificates belongs."""
        return self.directory / "app.revoked"

    def settings(self, changes: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of its commands, beside what tests have."""
        return {**self.environment, **(changes or {})}


class Authority:
    """The owner of an application."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.application = Application(directory)

    def client(self, name: str) -> Holder:
        """Issues a client's key."""
        return self._issue("--client", name, "app.pub")

    def worker(self, name: str) -> Holder:
        """Issues a worker's key."""
        return self._issue("--worker", name, "app.worker")

    def revoke(self, who: str) -> None:
        self._ckeygen("--revoke", who, self.application.secret)

    def deliver(self, *holders: Holder) -> None:
        """Copies the list to these machines, whole."""
        for holder in holders:
            draft = holder.directory / "draft"
            shutil.copy(self.directory / "app.revoked", draft)
            draft.rename(holder.list)

    def _issue(self, option: str, name: str, file: str) -> Holder:
        holder = Holder(self.directory / name, file)
        self._ckeygen(option, name, self.application.secret, holder.public)
        return holder

    @staticmethod
    def _ckeygen(*arguments: str | os.PathLike[str]) -> None:
        argv = command("ckeygen", *arguments)
        subprocess.run(argv, env=clean_environment(), check=True, capture_output=True, timeout=30)
