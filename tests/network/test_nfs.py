"""Workers of two hosts that share their cache of programs over a real NFS.

The kernel that runs the tests may know no NFS, and is nobody's to try on: a user-mode kernel of Debian does, with the
root directory of this machine to read, an NFS 4.2 server of its own, and two hosts with a network and a mount each.
Its packages, which nothing else here needs: user-mode-linux, nfs-kernel-server, kmod.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from string import Template

import pytest

from tests.environment import ROOT
from tests.needs import find_tool, require_tool

TOOLS = ("linux.uml", "kmod", "rpc.mountd", "exportfs", "rpc.nfsd", "mount.nfs4", "ip", "unshare")
SECONDS = 30  # that the hosts use the cache
TOGETHER = 3  # processes on each host
KERNEL = Template("""#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys
for directory in /run /var /mnt; do mount -t tmpfs none $$directory; done
export PATH="/mnt/bin:$path" LD_LIBRARY_PATH="$libraries" HOME=/run TMPDIR=/run
export PYTHONPATH="$root" PYTHONDONTWRITEBYTECODE=1
mkdir -p /mnt/bin /mnt/lib /mnt/export /mnt/shared /run/netns /run/lock /var/run /var/lib/nfs/v4recovery
ln -s "$kmod" /mnt/bin/modprobe; ln -s "$modules" /mnt/lib/modules
for module in nfsd nfsv4 veth; do modprobe -d /mnt $$module; done
ip link set lo up
mount -t nfsd nfsd /proc/fs/nfsd
mount -t tmpfs none /mnt/export; chmod 777 /mnt/export
: > /var/lib/nfs/etab; : > /var/lib/nfs/rmtab
rpc.mountd --no-udp -N 3
exportfs -i -o rw,no_root_squash,insecure,no_subtree_check,fsid=0 10.0.0.0/8:/mnt/export
rpc.nfsd -N 3 -U 4
echo Y > /proc/fs/nfsd/v4_end_grace
for n in 1 2; do
    ip netns add h$$n; ip link add v$$n type veth peer name e0 netns h$$n
    ip addr add 10.0.$$n.1/24 dev v$$n; ip link set v$$n up
    ip -n h$$n addr add 10.0.$$n.2/24 dev e0; ip -n h$$n link set e0 up; ip -n h$$n link set lo up
done
cat > /mnt/host <<'END'
n=$$1; shift
hostname host$$n
mount.nfs4 10.0.$$n.1:/ /mnt/shared -o vers=4.2,nosharecache,clientaddr=10.0.$$n.2 || exit 1
exec "$$@"
END
cd "$root"
"$python" "$hammer" watch & all=$$!
for one in $$(seq $together); do
    for n in 1 2; do
        ip netns exec h$$n unshare -m -u sh /mnt/host $$n "$python" "$hammer" $$n$$one & all="$$all $$!"
    done
done
for one in $$all; do wait $$one || echo "failed with $$?"; done
echo o > /proc/sysrq-trigger
sleep 9
""")
HAMMER = '''
import os, random, subprocess, sys, time

from cexec.protocol.base.sodium import keyed_hash
from cexec.system.storage.program_cache import LABEL, CacheProblem, ProgramCache

SIZE, LIMIT = 300_000, 4 * 300_100
programs = [b"#!/bin/sh\\necho program %d\\nexit 0\\n" % n + bytes([97 + n]) * SIZE for n in range(6)]
end = time.monotonic() + SECONDS

def watch():
    """From the server: how much there is at any time."""
    most = 0
    while time.monotonic() < end:
        total = 0
        for name in os.listdir("/mnt/export/cache") if os.path.exists("/mnt/export/cache") else ():
            try:
                total += os.stat(f"/mnt/export/cache/{name}").st_size
            except FileNotFoundError:
                pass
        most = max(most, total)
        time.sleep(0.002)
    print(f"most {most} of {LIMIT}", flush=True)

def use():
    chance = random.Random(sys.argv[1])
    cache = ProgramCache("/mnt/shared/cache", LIMIT)
    found = sent = 0
    while time.monotonic() < end:
        number = chance.randrange(len(programs))
        content = programs[number]
        name = keyed_hash(b"", LABEL, content).hex()
        held = cache.use(name)
        if held is None:
            try:
                draft = cache.draft(len(content))
            except CacheProblem:
                continue  # all are in use
            try:
                for begin in range(0, len(content), 50_000):
                    os.write(draft.fd, content[begin : begin + 50_000])
                    time.sleep(chance.choice([0, 0, 0.002]))
                held = cache.keep(draft, name, len(content))
            finally:
                draft.discard()
            sent += 1
        else:
            found += 1
        with open(held.path, "rb") as file:
            assert file.read() == content, "not what was sent"
        done = subprocess.run([held.path], capture_output=True, check=True)
        assert done.stdout == b"program %d\\n" % number
        held.release()
    print(f"host {sys.argv[1][0]} found {found} sent {sent}", flush=True)

watch() if sys.argv[1] == "watch" else use()
'''


@pytest.mark.campaign
@pytest.mark.timeout(200)
def test_two_hosts_that_share_a_cache_over_nfs_never_see_half_a_program(tmp_path: Path) -> None:
    require_tool(*TOOLS)
    paths = {name: os.path.realpath(find_tool(name) or "") for name in TOOLS}
    hammer = tmp_path / "hammer.py"
    hammer.write_text(HAMMER.replace("SECONDS", str(SECONDS)))
    init = tmp_path / "init"
    init.write_text(
        KERNEL.substitute(
            path=f"{os.environ['PATH']}:/usr/sbin:/sbin",
            libraries=os.environ.get("LD_LIBRARY_PATH", ""),
            root=ROOT,
            kmod=paths["kmod"],
            modules=Path(paths["linux.uml"]).parents[1] / "lib" / "uml" / "modules",
            python=sys.executable,
            hammer=hammer,
            together=TOGETHER,
        )
    )
    init.chmod(0o755)
    kernel = ["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "mem=768M", f"init={init}"]
    argv = [paths["linux.uml"], *kernel, "con=null", "con0=fd:0,fd:1", "quiet"]
    result = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=150
    )
    assert "failed with" not in result.stdout and "Traceback" not in result.stdout, result.stdout
    most, limit = map(int, re.findall(r"most (\d+) of (\d+)", result.stdout)[0])
    assert 0 < most <= limit
    told = re.findall(r"host (\d) found (\d+) sent (\d+)", result.stdout)
    assert sorted(host for host, _, _ in told) == ["1"] * TOGETHER + ["2"] * TOGETHER
    for _, found, sent in told:
        assert int(found) > 0 and int(sent) > 0
