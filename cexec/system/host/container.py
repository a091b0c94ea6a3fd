"""Detection of containers, whose network is often a bridge of the host; for explanations.

Contract: `container_kind()` names what the machine calls it, empty when nothing says so, and never raises.
"""

from __future__ import annotations

import os

_MARKS = (("/.dockerenv", "docker"), ("/run/.containerenv", "podman"), ("/run/systemd/container", ""))
_CONTROL_GROUPS = ("docker", "kubepods", "libpod", "lxc", "containerd")


def container_kind() -> str:
    """docker, podman, kubernetes, lxc and the like."""
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    for path, kind in _MARKS:
        if os.path.exists(path):
            return kind or _read(path) or "container"
    groups = _read("/proc/1/cgroup")
    return next((kind for kind in _CONTROL_GROUPS if kind in groups), "")


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
