"""Tasks over a dataset in parts: a year of temperatures, one file for each month, and what comes of all of them.

They are ordinary tasks: whether they run in this process or on a cluster stands in the definition.
"""

from __future__ import annotations

import csv
import math
import random
from pathlib import Path
from typing import TypedDict

from scattersphere import RunnableTask, TaskContext


class Month(TypedDict):
    """What one part comes to."""

    month: int
    days: int
    low: float
    mean: float
    high: float


class Parts(RunnableTask):
    """Write the dataset, where it is not there yet, and name its parts."""

    folder: str
    year: int = 2025

    def run(self, context: TaskContext) -> list[str]:
        """Return one file for each month; a real dataset would be there already."""
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for month in range(1, 13):
            file = folder / f"{self.year}-{month:02}.csv"
            noise = random.Random(self.year * 100 + month)  # noqa: S311 - weather, not a secret
            warmth = 10 - 11 * math.cos(2 * math.pi * (month - 0.5) / 12)
            with file.open("w", newline="", encoding="utf-8") as stream:
                rows = csv.writer(stream)
                rows.writerow(["day", "hour", "celsius"])
                for day in range(1, 29):
                    for hour in range(24):
                        swing = -4 * math.cos(2 * math.pi * (hour - 3) / 24)
                        rows.writerow([day, hour, round(warmth + swing + noise.gauss(0, 2), 1)])
            files.append(str(file))
        context.log.info("%d parts in %s", len(files), folder)
        return files


class Summarise(RunnableTask):
    """Read one part, and say what is in it."""

    file: str

    def run(self, context: TaskContext) -> Month:
        """Return few numbers: what is large stays in its file, where every worker can read it."""
        with Path(self.file).open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        values = []
        for number, row in enumerate(rows):
            if number % 100 == 0:
                context.check()  # a pause holds here, a cancel ends here
                context.progress(number, len(rows))
            values.append(float(row["celsius"]))
        return {
            "month": int(Path(self.file).stem.rpartition("-")[2]),
            "days": len({row["day"] for row in rows}),
            "low": min(values),
            "mean": round(sum(values) / len(values), 2),
            "high": max(values),
        }


class Plot(RunnableTask):
    """Draw the year, as a picture that a browser shows."""

    months: list[Month]

    def run(self, context: TaskContext) -> str:
        """Return the SVG: a bar from the lowest to the highest value of each month, and its mean."""
        low = min(month["low"] for month in self.months)
        high = max(month["high"] for month in self.months)

        def y(value: float) -> float:
            return round(20 + (high - value) / (high - low) * 160, 1)

        marks = []
        for month in sorted(self.months, key=lambda month: month["month"]):
            x = 20 + 30 * (month["month"] - 1)
            top, bottom, mean = y(month["high"]), y(month["low"]), y(month["mean"])
            marks.append(
                f'<rect x="{x}" y="{top}" width="18" height="{bottom - top:.1f}" fill="#9ecae1">'
                f"<title>month {month['month']}: {month['low']} to {month['high']} C</title></rect>"
                f'<line x1="{x}" x2="{x + 18}" y1="{mean}" y2="{mean}" stroke="#08519c" stroke-width="3"/>'
                f'<text x="{x + 9}" y="196" font-size="9" text-anchor="middle">{month["month"]}</text>'
            )
        context.log.info("%d months from %g to %g C", len(self.months), low, high)
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 390 200" role="img" '
            'aria-label="Temperatures of the year by month">' + "".join(marks) + "</svg>"
        )
