"""cmap over several hosts of unequal speed, undisturbed and while workers and it itself are killed."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import wave
from pathlib import Path
from time import monotonic, time

import pytest

from tests.campaigns import DEADLINE, Assassin, check_joblog, cmap, run, run_killed
from tests.conftest import MakeLab, StartService
from tests.environment import command
from tests.lab import Host, Lab
from tests.needs import require_tool
from tests.service import Application, Service

HOSTS = 4
TILE = 8  # pixels, both ways
WIDTH = 10  # tiles
MANDELBROT = """
import sys, time

def tile(left, top, size, width, height):
    rows = []
    for y in range(top, top + size):
        for x in range(left, left + size):
            c, z, n = complex(3 * x / width - 2.2, 2.4 * y / height - 1.2), 0j, 0
            while abs(z) < 2 and n < 60:
                z, n = z * z + c, n + 1
            rows.append(4 * n)
    return bytes(rows)

if __name__ == "__main__":
    delay, *numbers = sys.argv[1:]
    time.sleep(float(delay))
    sys.stdout.buffer.write(tile(*map(int, numbers)))
"""


class Picture:
    """A Mandelbrot picture of `rows` times WIDTH tiles, as a table of tasks in a directory."""

    def __init__(self, directory: Path, rows: int) -> None:
        self.directory = directory
        self.width, self.height = WIDTH * TILE, rows * TILE
        self.tiles = rows * WIDTH
        self.program = directory / "mandelbrot.py"
        self.program.write_text(MANDELBROT)
        places = [(x * TILE, y * TILE) for y in range(rows) for x in range(WIDTH)]
        lines = [f"{x},{y},{TILE},{self.width},{self.height}\n" for x, y in places]
        (directory / "tiles.csv").write_text("x,y,size,width,height\n" + "".join(lines))
        (directory / "tiles").mkdir()

    def worker(self, delay: float) -> list[str]:
        """The program of a worker that takes `delay` seconds longer for each tile."""
        return [sys.executable, "-I", str(self.program), str(delay)]

    def command(self, application: Application, *options: str) -> list[str]:
        columns = ["{x}", "{y}", "{size}", "{width}", "{height}"]
        files = ["--params", "tiles.csv", "--stdout", "tiles/{x}-{y}", "--joblog", "log"]
        return cmap(application, *files, *options, "--", *columns)

    def done(self) -> int:
        return sum(not name.startswith(".") for name in os.listdir(self.directory / "tiles"))

    def check(self) -> None:
        """The tiles together are the picture that is computed in one piece."""
        check_joblog(self.directory / "log", self.tiles)
        names = {"__name__": "mandelbrot"}
        exec(MANDELBROT, names)
        whole = names["tile"](0, 0, max(self.width, self.height), self.width, self.height)  # type: ignore[operator]
        stride = max(self.width, self.height)
        expected = [whole[y * stride : y * stride + self.width] for y in range(self.height)]
        found = [bytearray(self.width) for _ in range(self.height)]
        for path in (self.directory / "tiles").iterdir():
            left, top = map(int, path.name.split("-"))
            data = path.read_bytes()
            for line in range(TILE):
                found[top + line][left : left + TILE] = data[line * TILE : (line + 1) * TILE]
        assert found == expected


def make_recordings(directory: Path, number: int) -> list[str]:
    """WAV files of different length, and what oggenc makes of each here, as NAME.expected."""
    source = random.Random(1)
    names = []
    for index in range(number):
        frames = source.randrange(4_000, 20_000)
        tone = source.uniform(100, 1000)
        samples = (int(9000 * math.sin(tone * n / 8000) + source.randrange(2000)) for n in range(frames))
        names.append(f"r{index}.wav")
        with wave.open(os.fspath(directory / names[-1]), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples))
        with (directory / names[-1]).open("rb") as stdin, (directory / f"r{index}.expected").open("wb") as stdout:
            subprocess.run(ENCODER, stdin=stdin, stdout=stdout, check=True, timeout=DEADLINE)
    return names


ENCODER = ["oggenc", "-Q", "--serial", "1", "-o", "-", "-"]


def check_recordings(directory: Path, number: int) -> None:
    check_joblog(directory / "log", number)
    for index in range(number):
        assert (directory / f"r{index}.ogg").read_bytes() == (directory / f"r{index}.expected").read_bytes()


def encode(application: Application, names: list[str], *options: str) -> list[str]:
    return cmap(application, *options, "--stdin", "{}", "--stdout", "{.}.ogg", "--joblog", "log", ":::", *names)


def killed_workers(
    lab: Lab, application: Application, programs: list[list[str]], period: float, *options: str
) -> Assassin:
    def start(number: int) -> Service:
        return Service(application, programs[number], options, lab.host(number + 2))

    return Assassin(start, len(programs), period)


def draw(lab: MakeLab, service: StartService, application: Application, picture: Picture, slowest: float) -> None:
    hosts = lab(HOSTS + 1)
    for number in range(HOSTS):
        program = picture.worker(slowest * number / HOSTS)
        service(*program, options=["-j", "2", "--allow-args"], host=hosts.host(number + 2))
    run(hosts.host(1), picture.command(application), picture.directory)
    picture.check()
    lines = (picture.directory / "log").read_text().splitlines()[1:]
    assert len({line.split("\t")[1] for line in lines}) == HOSTS


def test_a_picture_is_made_of_tiles(
    tmp_path: Path, lab: MakeLab, service: StartService, application: Application
) -> None:
    draw(lab, service, application, Picture(tmp_path, 6), 0.2)


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_a_picture_is_made_of_a_thousand_tiles(
    tmp_path: Path, lab: MakeLab, service: StartService, application: Application
) -> None:
    draw(lab, service, application, Picture(tmp_path, 100), 0.2)


def draw_killed(lab: MakeLab, application: Application, picture: Picture, *, delay: float, period: float) -> None:
    hosts = lab(HOSTS + 1)
    programs = [picture.worker(delay * (number + 1)) for number in range(HOSTS)]
    argv = picture.command(application, "--state", "state", "--crash-limit", "0")
    with killed_workers(hosts, application, programs, period, "-j", "2", "--allow-args") as assassin:
        run_killed(hosts.host(1), argv, picture.directory, picture.done, [picture.tiles * n // 4 for n in (1, 2, 3)])
    assert assassin.killed
    picture.check()
    assert picture.done() == len(os.listdir(picture.directory / "tiles")) == picture.tiles


def test_a_picture_is_made_while_workers_and_cmap_are_killed(
    tmp_path: Path, lab: MakeLab, application: Application
) -> None:
    draw_killed(lab, application, Picture(tmp_path, 6), delay=0.1, period=0.3)


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_a_picture_of_a_thousand_tiles_is_made_while_workers_and_cmap_are_killed(
    tmp_path: Path, lab: MakeLab, application: Application
) -> None:
    draw_killed(lab, application, Picture(tmp_path, 100), delay=0.1, period=1.0)


def test_recordings_are_encoded_as_they_are_here(
    tmp_path: Path, lab: MakeLab, service: StartService, application: Application
) -> None:
    require_tool("oggenc")
    hosts = lab(3)
    for number in (2, 3):
        service(*ENCODER, options=["-j", "2"], host=hosts.host(number))
    run(hosts.host(1), encode(application, make_recordings(tmp_path, 8)), tmp_path)
    check_recordings(tmp_path, 8)


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_five_hundred_recordings_are_encoded_while_workers_and_cmap_are_killed(
    tmp_path: Path, lab: MakeLab, application: Application
) -> None:
    require_tool("oggenc")
    hosts = lab(HOSTS + 1)
    argv = encode(application, make_recordings(tmp_path, 500), "--state", "state", "--crash-limit", "0")

    def done() -> int:
        return len(list(tmp_path.glob("r*.ogg")))

    with killed_workers(hosts, application, [ENCODER] * HOSTS, 1.0, "-j", "2"):
        run_killed(hosts.host(1), argv, tmp_path, done, [125, 250, 375])
    check_recordings(tmp_path, 500)


def test_a_task_that_fails_is_tried_where_it_has_not_failed(
    tmp_path: Path, lab: MakeLab, service: StartService, application: Application
) -> None:
    hosts = lab(3)
    for number, program in ((2, ["false"]), (3, ["cat"])):
        service(*program, options=["-j", "2"], host=hosts.host(number))
    argv = cmap(application, "--retries", "2", "--joblog", "log", "--array", "1-20")
    run(hosts.host(1), argv, tmp_path)
    check_joblog(tmp_path / "log", 20)


def test_a_result_that_is_rejected_is_tried_on_another_worker(
    tmp_path: Path, lab: MakeLab, service: StartService, application: Application
) -> None:
    hosts = lab(3)
    for number, program in ((2, "cat; echo damaged"), (3, "cat")):
        service("sh", "-c", program, options=["-j", "2"], host=hosts.host(number))
    check = 'test "$(cat stdout)" = "$PARAM_1"'
    argv = cmap(application, "--validate", check, "--stdout", "{}.out", "--joblog", "log", "--array", "1-20")
    argv += ["--stdin-text", "{}\n"]
    run(hosts.host(1), argv, tmp_path)
    check_joblog(tmp_path / "log", 20)
    assert {path.read_text() for path in tmp_path.glob("*.out")} == {f"{number}\n" for number in range(1, 21)}


def sleep_everywhere(host: Host, application: Application, tasks: int, directory: Path, *options: str) -> float:
    """Seconds that so many tasks take."""
    began = monotonic()
    run(host, cmap(application, *options, "--array", f"1-{tasks}"), directory)
    return monotonic() - began


def test_a_host_that_never_ends_does_not_hold_up_the_end(
    tmp_path: Path, lab: MakeLab, service: StartService, application: Application
) -> None:
    """The others wait until it has a task; without copies of its tasks the run would take longer than it may."""
    hosts = lab(4)
    begun = tmp_path / "begun"
    others = f"cat; until test -e {begun}; do sleep 0.05; done; sleep 0.2"
    for number in (2, 3):
        service("sh", "-c", others, options=["-j", "2"], host=hosts.host(number))
    service("sh", "-c", f"touch {begun}; cat; sleep 600", options=["-j", "2"], host=hosts.host(4))
    run(hosts.host(1), cmap(application, "--speculate", "--joblog", "log", "--array", "1-24"), tmp_path)
    check_joblog(tmp_path / "log", 24)
    assert begun.exists()


@pytest.mark.campaign
def test_a_slow_host_does_not_hold_up_the_end_of_a_long_run(
    tmp_path: Path, lab: MakeLab, service: StartService, application: Application
) -> None:
    """It is ten times as slow as the others."""
    hosts = lab(4)
    for number in (2, 3):
        service("sh", "-c", "cat; sleep 0.2", options=["-j", "2"], host=hosts.host(number))
    without = sleep_everywhere(hosts.host(1), application, 200, tmp_path)
    service("sh", "-c", "cat; sleep 2", options=["-j", "2"], host=hosts.host(4))
    assert sleep_everywhere(hosts.host(1), application, 200, tmp_path, "--speculate") < 1.3 * without


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_three_coordinators_share_workers_by_weight(
    tmp_path: Path, lab: MakeLab, service: StartService, application: Application
) -> None:
    hosts = lab(5)
    for number in (2, 3, 4, 5):
        service("sleep", "0.4", options=["-j", "2"], host=hosts.host(number))  # enough jobs for 15 % to be no chance
    weights = (1, 2, 5)
    processes = []
    for weight in weights:
        argv = cmap(application, "--weight", str(weight), "--array", "1-100000", "--joblog", f"log{weight}")
        processes.append(hosts.host(1).popen(argv, cwd=tmp_path))
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            processes[0].wait(80)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    ends = [
        [float(line.split("\t")[2]) for line in (tmp_path / f"log{w}").read_text().splitlines()[1:]] for w in weights
    ]
    last = min(max(times) for times in ends)
    counts = [sum(last - 70 <= time <= last for time in times) for times in ends]  # when all are well under way
    for weight, count in zip(weights, counts, strict=True):
        assert count / sum(counts) == pytest.approx(weight / sum(weights), rel=0.15), counts


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_a_new_weight_changes_the_share_of_a_run_that_goes_on(
    tmp_path: Path, lab: MakeLab, service: StartService, application: Application
) -> None:
    hosts = lab(3)
    for number in (2, 3):
        service("sleep", "0.2", options=["-j", "2"], host=hosts.host(number))
    names = ("one", "other")
    begun = time()
    processes = [
        hosts.host(1).popen(
            cmap(application, "--array", "1-100000", "--joblog", f"log-{name}", "--state", name), cwd=tmp_path
        )
        for name in names
    ]
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            processes[0].wait(40)
        changed = time()
        subprocess.run(command("cmap", "weight", tmp_path / "one", "4"), check=True, timeout=60)
        with pytest.raises(subprocess.TimeoutExpired):
            processes[0].wait(50)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    logs = [(tmp_path / f"log-{name}").read_text().splitlines()[1:] for name in names]
    starts = [[float(line.split("\t")[2]) for line in log] for log in logs]

    def share(first: float, last: float) -> float:
        one, other = (sum(first <= start < last for start in times) for times in starts)
        return one / (one + other)

    before = share(begun + 15, changed)
    after = share(changed + 5, changed + 45)  # when the leases of the old weight are over
    assert before == pytest.approx(1 / 2, abs=0.08) and after == pytest.approx(4 / 5, abs=0.08), (before, after)
    for log in logs:
        assert len({line.split("\t")[0] for line in log}) == len(log), "no task was done twice"
