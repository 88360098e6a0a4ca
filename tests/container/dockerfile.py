"""A strict reader of Dockerfiles: what it does not know is an error, not skipped."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Final

KNOWN: Final = ("ARG", "CMD", "COPY", "ENV", "FROM", "RUN", "USER", "WORKDIR")


class BadDockerfile(Exception):
    """A line that this reader, or an engine, would not understand."""


@dataclass
class Stage:
    """From one FROM to the next: `base` is an image, or the name of an earlier stage."""

    base: str
    name: str = ""
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """The arguments of every such instruction, in order."""
        return [rest for found, rest in self.steps if found == instruction]

    def environment(self) -> dict[str, str]:
        """What ENV sets. Only NAME=VALUE is read."""
        return dict(pair.split("=", 1) for rest in self.all("ENV") for pair in shlex.split(rest))

    def copies(self) -> list[tuple[str, list[str], str]]:
        """Each COPY: the stage it is from ("" for the checkout), what, and where to."""
        found = []
        for rest in self.all("COPY"):
            option = re.match(r"--from=(\S+) +", rest)
            *what, to = shlex.split(rest[option.end() if option else 0 :])
            if not what or any(word.startswith("--") for word in what):
                raise BadDockerfile(f"COPY {rest}: no source, or an unknown option")
            found.append((option[1] if option else "", what, to))
        return found

    def command(self) -> list[str]:
        """CMD, which must be a list: a line would go through a shell."""
        *_, last = self.all("CMD")
        words = json.loads(last)
        if not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
            raise BadDockerfile(f"CMD {last}: no list of words")
        return words


def read(text: str) -> list[Stage]:
    """The stages in their order."""
    stages: list[Stage] = []
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    logical = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    for line in filter(str.strip, logical):
        instruction, _, rest = line.partition(" ")
        if instruction not in KNOWN:
            raise BadDockerfile(f"{line}: {instruction} is none of {', '.join(KNOWN)}")
        rest = rest.strip()
        if instruction == "FROM":
            found = re.fullmatch(r"(\S+)(?: AS (\w+))?", rest)
            if found is None:
                raise BadDockerfile(f"{line}: not FROM IMAGE or FROM IMAGE AS NAME")
            stages.append(Stage(found[1], found[2] or ""))
        elif not stages:
            raise BadDockerfile(f"{line}: before the first FROM")
        else:
            stages[-1].steps.append((instruction, rest))
    return stages


def ignored(path: str, patterns: str) -> bool:
    """Whether a .dockerignore leaves a path out of the build: it, or a folder that it is in."""
    rules = [line for line in patterns.splitlines() if line and not line.startswith("#")]
    if bad := [rule for rule in rules if rule.startswith(("!", "/")) or rule.endswith("/")]:
        raise BadDockerfile(f".dockerignore: {bad[0]}: not read by this reader")
    parts = path.split("/")
    heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    return any(_matches(head, rule) for head in heads for rule in rules)


def _matches(path: str, rule: str) -> bool:
    if rule.startswith("**/"):
        return fnmatch(path.rpartition("/")[2], rule[3:])
    return path.count("/") == rule.count("/") and fnmatch(path, rule)
