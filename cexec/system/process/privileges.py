"""What a process and the programs that it starts may do, and who may look into its memory.

Contract: all of it is given up for good.  `guard_memory` keeps other processes of the same user from reading this one's
memory, and the kernel from writing it to a core file; a program that this process executes is an ordinary one again.
`forbid_new_privileges` holds for all descendants: no set-user-ID program gives them another user's rights.
`find_account` raises `UsageError` for a user who does not exist and for a caller who is not root; `Account.become`
raises `LocalError` if the system refuses.  prctl(2), credentials(7).  Other systems than Linux have neither prctl.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.errors import LocalError, UsageError
from cexec.system.process.process import prctl
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_SET_DUMPABLE, _SET_NO_NEW_PRIVS = 4, 38  # PR_SET_DUMPABLE and PR_SET_NO_NEW_PRIVS of <linux/prctl.h>
_OF_A_LOGIN = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "MAIL")


def guard_memory() -> None:
    """To be called again after each change of user.  A forked process inherits it."""
    prctl(_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    prctl(_SET_NO_NEW_PRIVS, 1)


@dataclass(slots=True)
class Account:
    """Another user of this machine.  `groups` are the supplementary ones."""

    name: str
    user: int
    group: int
    groups: list[int]
    home: str
    shell: str

    def become(self, environment: MutableMapping[str, str]) -> None:
        """Turns this process into one of that user, with an environment as after a login; there is no way back."""
        try:
            os.setgroups(self.groups)
            os.setresgid(self.group, self.group, self.group)
            os.setresuid(self.user, self.user, self.user)
        except OSError as error:
            raise LocalError(f"cannot become the user {self.name}: {reason_of(error)}") from None
        if not os.access(os.__file__, os.R_OK):
            raise LocalError(f"the user {self.name} cannot read {os.path.dirname(os.__file__)}, where Python is; "
                             "install cexec where every user can read it")  # fmt: skip
        environment.update(HOME=self.home, USER=self.name, LOGNAME=self.name, SHELL=self.shell)
        for name in _OF_A_LOGIN:
            environment.pop(name, None)  # these are the directories of the user who has started us


def find_account(name: str) -> Account:
    """The user to become."""
    import pwd

    if os.geteuid() != 0:
        raise UsageError(f"--user {name}: only root can become another user")
    try:
        found = pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise UsageError(f"--user {name}: there is no such user on this machine") from None
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    return Account(found.pw_name, found.pw_uid, found.pw_gid, groups, found.pw_dir, found.pw_shell)
