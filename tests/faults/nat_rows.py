"""A NAT between the client and its workers that forgets what is idle."""

from __future__ import annotations

from tests.faults.load import Lane, Plan, Shape, submit_to_file
from tests.faults.rows import NETWORK, row
from tests.faults.scene import Layout, Scene
from tests.lab import Host
from tests.waiting import PATIENCE, wait_until

# The worker is inside, host 2 is its NAT.  The client is outside and sends its announcements to the NAT, which passes
# them on to the worker, as a forwarded port does.
LAYOUT = Layout(networks=((1, 2, 9), (2, 3)), client=3, workers=(1,), nat=2, slots=6)
GROUP = {"CEXEC_GROUP": "10.77.1.2"}
SHORT, USUAL = 2, 30  # seconds
IDLE = 40.0  # seconds that a job says nothing: longer than the usual NAT remembers
BRIEFLY_IDLE = 6.0  # longer than the short one


def forget_after(host: Host, seconds: int) -> None:
    names = ("udp_timeout", "udp_timeout_stream", "tcp_timeout_established", "tcp_timeout_unacknowledged")
    script = " && ".join(f"echo {seconds} > /proc/sys/net/netfilter/nf_conntrack_{name}" for name in names)
    host.run(["sh", "-c", script], check=True)


def submit_idle(lane: Lane) -> None:
    submit_to_file(lane, Shape(65_536, pause=IDLE))


def submit_briefly_idle(lane: Lane) -> None:
    submit_to_file(lane, Shape(65_536, pause=BRIEFLY_IDLE))


@row("NAT forgets after 30 s", NETWORK, "a worker behind a NAT that forgets idle connections after 30 s; jobs are"
     " silent for 40 s", layout=LAYOUT, plan=Plan(environment=GROUP, others=(submit_idle,)))  # fmt: skip
def nat_forgets(scene: Scene) -> None:
    with scene.fault():
        forget_after(scene.lab.host(LAYOUT.nat), USUAL)
        wait_until(lambda: scene.load.lanes["own0"].done, PATIENCE + IDLE)


@row("NAT forgets after 2 s", NETWORK, "the same with 2 s, and jobs that are silent for 6 s",
     layout=LAYOUT, plan=Plan(environment=GROUP, others=(submit_briefly_idle,)))  # fmt: skip
def nat_forgets_soon(scene: Scene) -> None:
    with scene.fault():
        forget_after(scene.lab.host(LAYOUT.nat), SHORT)
        wait_until(lambda: scene.load.lanes["own0"].done > 1, PATIENCE)
