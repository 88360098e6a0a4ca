"""The Dockerfile does what it says, without an engine: read strictly, its steps run in bubblewrap.

`make image` builds it with a real engine. Here the base image is this machine: what apt-get would
install is taken from it, and what pip would download from the environment of the tests. All other
steps run as they stand, and the image's command runs as its user, under the default profile.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.container.dockerfile import BadDockerfile, Stage, ignored, read
from tests.patience import LIMIT_S
from tests.runner.container_profile import MOBY
from tests.runner.gcc import needs_gcc
from tests.runner.test_container import missing
from tests.tidy.repository import text_files
from tests.tidy.source import ROOT

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
IGNORE = (ROOT / ".dockerignore").read_text(encoding="utf-8")
STAGES = read(TEXT)
PYTHON, BUILD, FINAL = STAGES
# Steps that need a package index of Debian or change the users of the system.
OF_THE_SYSTEM = re.compile(r"apt-get update |useradd ")


def installed(stage: Stage) -> set[str]:
    """The Debian packages that a stage installs by itself."""
    runs = [run for run in stage.all("RUN") if "apt-get install" in run]
    words = [run.partition("apt-get install")[2].partition("&&")[0].split() for run in runs]
    return {word for line in words for word in line if not word.startswith("-")}


def test_the_stages() -> None:
    assert [(stage.base, stage.name) for stage in STAGES] == [
        ("debian:bookworm-slim", "python"),
        ("python", "build"),
        ("python", ""),
    ]
    assert installed(PYTHON) == {"python3"}
    assert installed(FINAL) == set(), "no compiler in the image"
    for stage in STAGES:
        for run in stage.all("RUN"):
            if "apt-get install" in run:
                assert "--no-install-recommends" in run
                assert run.endswith("rm -rf /var/lib/apt/lists/*")


def test_nothing_runs_as_root_in_the_image() -> None:
    order = [instruction for instruction, _ in FINAL.steps]
    assert FINAL.all("USER") == ["1000"], "a number, so that an orchestrator can check it"
    (user,) = (run for run in FINAL.all("RUN") if run.startswith("useradd"))
    assert "--uid 1000" in user
    assert order.index("USER") > max(n for n, step in enumerate(order) if step in ("RUN", "COPY"))
    assert FINAL.all("WORKDIR") == ["/home/softsgx"]


def test_what_is_copied_between_stages_is_made_there() -> None:
    made = " ".join(BUILD.all("RUN"))
    names = {stage.name for stage in STAGES}
    for source, what, to in FINAL.copies():
        assert source in names
        for path in what:
            assert f"{path}/" in made, path
            assert path == to, "a virtual environment works only where it was made"


def test_the_build_gets_what_git_has_and_nothing_made() -> None:
    """COPY takes the checkout; what a build leaves behind would make every build a new one."""
    assert [copy for copy in BUILD.copies() if not copy[0]] == [("", ["."], ".")]
    lost = [path for path, _ in text_files() if ignored(path, IGNORE)]
    assert lost == []
    for made in (".venv/bin/python", "build/demo/key.pem", "dist/a.whl", ".git/config"):
        assert ignored(made, IGNORE), made
    for made in ("src/softsgx.egg-info/PKG-INFO", "src/a/__pycache__/b.pyc", ".mypy_cache/a"):
        assert ignored(made, IGNORE), made


def test_no_key_is_in_the_image() -> None:
    (run,) = (run for run in BUILD.all("RUN") if run.startswith("make "))
    assert run.endswith("&& rm /opt/demo/key.pem")


@pytest.mark.parametrize(
    "text",
    [
        "RUN true",
        "FROM a\nHEALTHCHECK CMD true",
        "FROM a as build",
        "FROM a\nfrom b",
        "FROM a\nADD https://x /y",
    ],
)
def test_what_the_reader_does_not_know_is_refused(text: str) -> None:
    with pytest.raises(BadDockerfile):
        read(text)


def test_the_reader() -> None:
    run = "RUN one \\\n    # said why\n    && two\n"
    (stage,) = read(f"# c\nFROM a AS b\nENV X=1 Y='2 3'\n{run}COPY --from=b c d e\n")
    assert stage.all("RUN") == ["one && two"]
    assert stage.environment() == {"X": "1", "Y": "2 3"}
    assert stage.copies() == [("b", ["c", "d"], "e")]
    for line in ("COPY --chown=1 a b", "COPY a"):
        with pytest.raises(BadDockerfile):
            read(f"FROM a\n{line}")[0].copies()
    with pytest.raises(BadDockerfile):
        read('FROM a\nCMD "a b"')[0].command()
    assert ignored("a/b", "a")
    assert not ignored("c/a", "a")
    with pytest.raises(BadDockerfile):
        ignored("a", "!a")


# The steps, in bubblewrap


def packages_of_the_tests(farm: Path) -> None:
    """Links to the packages of this environment, without pip and softsgx."""
    farm.mkdir()
    for key in ("purelib", "platlib"):
        for path in Path(sysconfig.get_path(key)).iterdir():
            ours = path.name.startswith(("softsgx", "__editable__", "pip", "_virtualenv"))
            if not ours and not path.name.endswith(".pth") and not (farm / path.name).exists():
                (farm / path.name).symlink_to(path)


def in_sandbox(
    command: Sequence[str],
    place: Path,
    opt: Path,
    environ: Mapping[str, str],
    cwd: str,
    *options: str,
    profile: bytes = b"",
) -> subprocess.CompletedProcess[str]:
    """A command where / is this machine's, but /opt, /src, /wheels and /home are ours."""
    ours = {"opt", "src", "wheels", "home", "proc", "dev", "tmp", "root", "sys", "run"}
    words = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--die-with-parent"]
    for path in sorted(Path("/").iterdir()):
        if path.is_symlink():
            words += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir() and path.name not in ours:
            words += ["--ro-bind", str(path), str(path)]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--dir", "/home/softsgx"]
    words += ["--bind", str(opt), "/opt"]
    for name in ("src", "wheels"):
        words += ["--bind", str(place / name), f"/{name}"]
    for path in (*map(Path, {sys.prefix, sys.base_prefix}), place / "farm", place / "bin"):
        words += ["--ro-bind", str(path), str(path)]
    words += [*options, "--chdir", cwd]
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(place / "farm"), **environ}
    folders = given["PATH"].split(":")
    system = sum(folder.startswith("/opt/softsgx") for folder in folders)
    given["PATH"] = ":".join([*folders[:system], str(place / "bin"), *folders[system:]])
    with tempfile.TemporaryFile() as code:
        code.write(profile)
        code.seek(0)
        if profile:
            words += ["--seccomp", str(code.fileno())]
        return subprocess.run(
            [*words, "--", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
            env={**given, "PIP_NO_INDEX": "1", "HOME": "/home/softsgx"},
            pass_fds=[code.fileno()] if profile else [],
        )


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """The build stage, run; what its steps made is below `opt`."""
    if missing():
        pytest.skip(missing())
    with tempfile.TemporaryDirectory(prefix="softsgx-image-") as name:
        place = Path(name)
        place.chmod(0o755)
        for path, _ in text_files():
            (place / "src" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, place / "src" / path)
        for made in ("opt", "wheels", "bin"):
            (place / made).mkdir()
        (place / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
        packages_of_the_tests(place / "farm")
        environ = PYTHON.environment()
        cwd = "/"
        for instruction, rest in BUILD.steps:
            if instruction == "WORKDIR":
                cwd = rest
            elif instruction in ("ENV", "ARG"):
                environ |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            elif instruction == "RUN" and not OF_THE_SYSTEM.match(rest):
                done = in_sandbox(["/bin/sh", "-c", rest], place, place / "opt", environ, cwd)
                assert done.returncode == 0, f"RUN {rest}\n{done.stdout}{done.stderr}"
        yield place


@needs_gcc
def test_the_image_runs_the_demo_under_the_default_profile(place: Path, tmp_path: Path) -> None:
    (wheel,) = (place / "wheels").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    opt = tmp_path / "opt"
    for _, what, _ in FINAL.copies():
        for path in what:
            shutil.copytree(
                place / Path(path).relative_to("/"), opt / Path(path).name, symlinks=True
            )
    assert not list((opt / "demo").glob("*.pem"))
    (uid,) = FINAL.all("USER")
    (cwd,) = FINAL.all("WORKDIR")
    # Sources and wheel are of the build stage only.
    options = ["--uid", uid, "--gid", uid, "--tmpfs", "/src", "--tmpfs", "/wheels"]
    for command, says in (
        (FINAL.command(), "edmm: 10 steps, as the manual and the kernel say"),
        (["softsgx", "doctor"], "programs can run here"),
        (["python3", "-c", "import softsgx; print(softsgx.__file__)"], "/opt/softsgx/lib/"),
    ):
        done = in_sandbox(
            command, place, opt, FINAL.environment(), cwd, *options, profile=MOBY.code()
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert says in done.stdout.splitlines()[-1]
