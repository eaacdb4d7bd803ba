"""What a page of the documentation holds: fenced blocks, links, headings. Reads Markdown; runs nothing.

The word after the fence is the block's language, what follows says what a test does with it:

    ```yaml file=policies/gateway.yaml    written to that file before what follows on the page is run
    ```yaml outline                       shows a shape with parts left out: has to be YAML, and no more
    ```console                            `$ ` lines are run (`> ` goes on), what is shown below each is compared,
                                          where `...` is anything
    ```console background                 the same for a server: it goes on until the page ends
    ```sh                                 every line is run and has to succeed
    ```sh no-run                          cannot be run in a test: only programs that are listed there

Two comments, which readers do not see, belong to the test as well: `<!-- setup ... -->` holds lines that are run, and
`<!-- with: --duration 0.2 -->` adds options to the command that comes next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")
_WITH = re.compile(r"^<!-- with: (?P<options>.*) -->$")
_LINK = re.compile(r"(?<!\!)\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^()\s]+)\)")
_HEADING = re.compile(r"^(#{1,6}) (.*?)\s*#*$")
_INLINE_CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block, or a comment that a test runs: where it begins, what the info string says, its text."""

    page: Path
    line: int
    language: str
    flags: frozenset[str]
    file: str
    text: str
    extra: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(slots=True)
class Page:
    """A page taken apart. `prose` is the text without its blocks, line by line."""

    path: Path
    blocks: list[Block] = field(default_factory=list)
    prose: list[tuple[int, str]] = field(default_factory=list)

    @property
    def links(self) -> Iterator[tuple[int, str]]:
        """Line and target of each link."""
        for line, text in self.prose:
            yield from ((line, found["target"]) for found in _LINK.finditer(_INLINE_CODE.sub("`code`", text)))

    @property
    def anchors(self) -> set[str]:
        """What a link may name after `#`, as GitHub makes it of the headings."""
        seen: dict[str, int] = {}
        for _, text in self.prose:
            if found := _HEADING.match(text):
                name = anchor(found[2])
                seen[name] = seen.get(name, -1) + 1
                if seen[name]:
                    seen[f"{name}-{seen[name]}"] = 0
        return set(seen)

    @property
    def codes(self) -> Iterator[str]:
        """The inline code spans."""
        for found in _INLINE_CODE.finditer("\n".join(text for _, text in self.prose)):
            yield " ".join(found[2].split())


def anchor(heading: str) -> str:
    """The name of a heading in a link."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.strip().replace(" ", "-")


def paths() -> list[Path]:
    """The pages: README, CONTRIBUTING and everything in docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def read(path: Path) -> Page:
    """A page taken apart. Raises ValueError for a fence or comment that does not end."""
    page = Page(path)
    lines = list(enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
    extra = ""
    while lines:
        number, text = lines.pop(0)
        if (fence := _FENCE.match(text)) is not None:
            inside = _until(lines, lambda line: line.strip() == fence["fence"], f"{path}:{number}: the fence")
            page.blocks.append(_block(path, number, fence, inside, extra))
            extra = ""
        elif text.strip() == "<!-- setup":
            inside = _until(lines, lambda line: line.strip() == "-->", f"{path}:{number}: the comment")
            page.blocks.append(Block(path, number, "sh", frozenset(("setup",)), "", "\n".join(inside)))
        elif (found := _WITH.match(text.strip())) is not None:
            extra = found["options"]
        else:
            page.prose.append((number, text))
    return page


def _until(lines: list[tuple[int, str]], ends: object, what: str) -> list[str]:
    inside: list[str] = []
    while lines:
        _, text = lines.pop(0)
        if ends(text):  # type: ignore[operator]
            return inside
        inside.append(text)
    raise ValueError(f"{what} does not end")


def _block(path: Path, line: int, fence: re.Match[str], inside: list[str], extra: str) -> Block:
    language, *words = fence["info"].split() or [""]
    file = next((word.removeprefix("file=") for word in words if word.startswith("file=")), "")
    flags = frozenset(word for word in words if not word.startswith("file="))
    indent = len(fence["indent"])
    text = "\n".join(text[indent:] if text[:indent].isspace() else text for text in inside)
    return Block(path, line, language, flags, file, text, extra)
