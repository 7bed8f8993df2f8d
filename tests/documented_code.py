"""The code blocks of a document: files that it shows, programs and commands."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

__all__ = ("Blocks", "read_blocks")


class Blocks(NamedTuple):
    """What a document shows."""

    files: dict[str, str]  # by the name in their first line, a comment
    programs: list[str]  # other Python blocks
    commands: list[list[str]]  # of surefoot: the arguments after its name


def read_blocks(document: Path) -> Blocks:
    """Return a document's code blocks, in its order."""
    blocks = Blocks({}, [], [])
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```", document.read_text(), flags=re.MULTILINE | re.DOTALL):
        name = re.match(r"# ([\w/]+\.(?:py|yaml))\n", text)
        if name:
            assert name[1] not in blocks.files, f"{document} shows {name[1]} twice"
            blocks.files[name[1]] = text
        elif language == "python":
            blocks.programs.append(text)
        elif language == "sh":
            lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
            blocks.commands.extend(words[1:] for words in lines if words and words[0].endswith("surefoot"))
    return blocks
