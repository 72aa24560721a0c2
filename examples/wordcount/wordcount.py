"""A bundle: count the words of a tree of text files, and find the URLs in it."""

from __future__ import annotations

import re
import shutil
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from scattersphere import RunnableTask, TaskContext

WORD = re.compile(r"[A-Za-z][a-z']{2,}")
URL = re.compile(r"https?://[^\s\"'<>)\]}]+")


class FindFiles(RunnableTask):
    """List the files of a tree, in groups that are counted side by side."""

    root: str = ""
    suffix: str = ".py"
    groups: int = 16

    def run(self, context: TaskContext) -> list[list[str]]:
        """Return at most `groups` lists of paths. An empty `root` means Python's own library."""
        root = Path(self.root or sysconfig.get_path("stdlib"))
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is no folder; pass another one: -p root=FOLDER")
        files = sorted(
            str(path)
            for path in root.rglob(f"*{self.suffix}")
            if path.is_file() and "site-packages" not in path.parts
        )
        context.log.info("%d files below %s", len(files), root)
        return [group for start in range(self.groups) if (group := files[start :: self.groups])]


class CountWords(RunnableTask):
    """Count the words of some files and collect the URLs in them."""

    paths: list[str]

    def run(self, context: TaskContext) -> dict[str, Any]:
        """Return the counts of words, the URLs and the number of files."""
        words: Counter[str] = Counter()
        urls: set[str] = set()
        for done, path in enumerate(self.paths, 1):
            context.check()  # here a pause holds the thread, and a cancel ends it
            text = Path(path).read_text(encoding="utf-8", errors="replace")
            words.update(match.lower() for match in WORD.findall(text))
            urls.update(URL.findall(text))
            if done % 20 == 0 or done == len(self.paths):
                context.progress(done, len(self.paths), "files")
        return {"words": words, "urls": urls, "files": len(self.paths)}


class Merge(RunnableTask):
    """Add the counts up."""

    counts: list[dict[str, Any]]
    top: int = 10

    async def run(self, context: TaskContext) -> dict[str, Any]:
        """Return totals, the most frequent words and all URLs in order."""
        words: Counter[str] = Counter()
        urls: set[str] = set()
        for count in self.counts:
            words.update(count["words"])
            urls |= count["urls"]
        context.log.info("%d different words, %d URLs", len(words), len(urls))
        return {
            "files": sum(count["files"] for count in self.counts),
            "words": words.total(),
            "top": sorted(words.items(), key=lambda item: (-item[1], item[0]))[: self.top],
            "urls": sorted(urls),
        }


class WriteReport(RunnableTask):
    """Write a small report."""

    merged: dict[str, Any]
    folder: str

    def run(self, context: TaskContext) -> str:
        """Return the path of the report."""
        path = Path(self.folder) / "report.txt"
        lines = [f"{self.merged['words']} words in {self.merged['files']} files", ""]
        lines += [f"{count:>9}  {word}" for word, count in self.merged["top"]]
        lines += ["", f"{len(self.merged['urls'])} URLs", *self.merged["urls"]]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        context.log.info("wrote %s", path)
        return str(path)


class MakeScratch(RunnableTask):
    """Make the folder in which the report is written."""

    keep: str = ""

    def run(self, context: TaskContext) -> str:
        """Return the folder: the given one, or a temporary one."""
        if self.keep:
            Path(self.keep).mkdir(parents=True, exist_ok=True)
            return self.keep
        return tempfile.mkdtemp(prefix="wordcount-")


class RemoveScratch(RunnableTask):
    """Remove the temporary folder, however the run went."""

    folder: str | None
    keep: str = ""

    def run(self, context: TaskContext) -> None:
        """Remove what `MakeScratch` made, unless it is to be kept."""
        if self.folder and not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)
            context.log.info("removed %s; keep the report with -p out=FOLDER", self.folder)
