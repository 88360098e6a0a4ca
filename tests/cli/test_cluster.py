"""`softsgx explore --cluster`: a scheduler and its workers as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from softsgx.cli import workers
from softsgx.cli.main import main
from softsgx.explore.unit import Unit
from tests.cli.test_explore import CORRECT, COUNTER, MORTAL, explored, written
from tests.patience import LIMIT_S, until


@contextmanager
def running(*argv: str, seed: str = "0") -> Iterator[None]:
    """A process of Dask."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *argv],
        env={**os.environ, "PYTHONHASHSEED": seed},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(LIMIT_S)


@contextmanager
def scheduler(directory: Path, *seeds: str) -> Iterator[str]:
    """A scheduler with one worker for each seed; its address."""
    file = directory / "scheduler.json"
    named = ["--scheduler-file", str(file)]
    free = ["--port", "0", "--no-dashboard", "--host", "127.0.0.1"]
    with running("scheduler", *named, *free):
        until(lambda: _address(file))
        address = _address(file)
        with _workers(address, seeds):
            until(lambda: _count(address) == len(seeds))
            yield address


def _address(file: Path) -> str:
    """The address in the file of a scheduler; empty until it is written whole."""
    with suppress(FileNotFoundError, json.JSONDecodeError):
        return str(json.loads(file.read_text())["address"])
    return ""


@contextmanager
def _workers(address: str, seeds: tuple[str, ...]) -> Iterator[None]:
    if not seeds:
        yield
        return
    options = ["--nthreads", "2", "--no-dashboard", "--local-directory", "/tmp"]
    # A nanny would give all of them one seed.
    options += ["--no-nanny"] * (len(set(seeds)) > 1)
    with running("worker", address, *options, seed=seeds[0]), _workers(address, seeds[1:]):
        yield


def _count(address: str) -> int:
    code = (
        "import sys, distributed\n"
        "client = distributed.Client(sys.argv[1], timeout=int(sys.argv[2]))\n"
        "print(len(client.scheduler_info(n_workers=-1)['workers']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, address, str(LIMIT_S)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def softsgx(argv: list[str]) -> subprocess.CompletedProcess[str]:
    """In a process of its own: Dask has threads that outlive a call."""
    command = [sys.executable, "-m", "softsgx.cli.main", "explore", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler with two workers of two threads each."""
    with scheduler(tmp_path_factory.mktemp("dask"), "0", "0") as found:
        yield found


@pytest.mark.parametrize("strategy", ["deepening", "exhaustive", "random"])
@pytest.mark.parametrize("text", [COUNTER, CORRECT], ids=["counter", "correct"])
def test_a_cluster_finds_what_one_process_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, strategy: str, address: str
) -> None:
    argv = [written(tmp_path, text), "--strategy", strategy, "--executions", "200"]
    (found,) = json.loads(softsgx([*argv, "--cluster", address, "--json"]).stdout)
    del found["seconds"]
    assert found == explored(argv, capsys)


def test_a_worker_that_is_killed_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """The file is found at its path, next to the mark of the worker that was killed."""
    path = written(tmp_path, MORTAL.replace("SOFTSGX_PARENT", "SOFTSGX_PARENT_OF_CLUSTER"))
    monkeypatch.setenv("SOFTSGX_PARENT_OF_CLUSTER", str(os.getpid()))
    argv = [path, "--cluster", address, "--strategy", "dfs", "--json"]
    (found,) = json.loads(softsgx(argv).stdout)
    assert Path(path).with_suffix(".mark").exists()
    assert (found["executions"], found["complete"]) == (252, True)


def test_a_file_that_a_worker_does_not_have_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or of which it has another version."""
    for place in (tmp_path / "nowhere" / "own.py", tmp_path / "own.py"):
        (tmp_path / "own.py").write_text("raise AssertionError('not this one')")
        spec = workers.SearchSpec(
            str(place), "Correct", CORRECT.encode(), workers.worker_identity()
        )
        (part,) = workers.work_on(spec, [Unit("dfs")], 60.0)
        assert (part.executions, part.failure) == (252, None)


def refused(argv: list[str]) -> str:
    done = softsgx(["FirstTouch", *argv])
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    return line.removeprefix("softsgx: explore: ")


def test_workers_that_hash_differently_are_refused(tmp_path: Path) -> None:
    """Footprints hold hashes of strings, so results of one would be wrong for another."""
    with scheduler(tmp_path, "1", "2") as found:
        line = refused(["--cluster", found])
    assert line == (
        f"--cluster {found}: workers have different hashes: start all of them with PYTHONHASHSEED=0"
    )


def test_a_scheduler_without_workers_is_refused(tmp_path: Path) -> None:
    with scheduler(tmp_path) as found:
        assert refused(["--cluster", found]).endswith(": the scheduler has no workers")


def test_no_answer_is_bad_input() -> None:
    assert "missing port number" in refused(["--cluster", "somewhere"])
    line = refused(["--cluster", "127.0.0.1:1"])
    assert line.startswith("--cluster 127.0.0.1:1: no Dask scheduler answers: ")
    line = refused(["--cluster", "127.0.0.1:1", "--jobs", "2"])
    assert line.endswith("--jobs is for a cluster on this machine")


@pytest.mark.parametrize("answer", [{"type": "Worker"}, {}, "Scheduler", None, ["type"]], ids=str)
def test_what_answers_otherwise_is_no_scheduler(
    answer: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worker, or another server of the same protocol."""

    class Other:
        def __init__(self, address: str, timeout: float) -> None:
            pass

        async def __aenter__(self) -> Other:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def identity(self) -> object:
            return answer

    monkeypatch.setattr("distributed.core.rpc", Other)
    assert main(["explore", "FirstTouch", "--cluster", "tcp://there:1"]) == 2
    line = "softsgx: explore: --cluster tcp://there:1: not a Dask scheduler\n"
    assert capsys.readouterr().err == line


def test_without_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["explore", "FirstTouch", "--cluster"]) == 2
    line = "softsgx: explore: --cluster: needs Dask: in the checkout: pip install '.[cluster]'\n"
    assert capsys.readouterr().err == line
