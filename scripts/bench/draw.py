#!/usr/bin/env python3
"""Draws the ratios of one series of run.py as an SVG: draw.py OUT.svg [--results FILE] [--series WHEN]

The scale is logarithmic and every bar begins at 1, so twice as good and half as good are equally long. The drawing
has no background and colours that can be read on a light and on a dark one. Python's standard library only.
"""
import argparse
import json
import math
import statistics
import sys
from pathlib import Path
from xml.sax.saxutils import escape

from run import METRICS, SERVERS, WORKS, shown

HERE = Path(__file__).resolve().parent
WIDTH, LEFT, RIGHT = 860, 150, 300
ROW, BAR = 24, 14
# In which of them more is better; in all others less is.
MORE_IS_BETTER = {"accepted", "delivered"}
LEFT_OUT = {"lost", "delivered"}
STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #77808a }
    .title { font-size: 16px; font-weight: 600 }
    .work { font-weight: 600 }
    .small { font-size: 11px }
    .grid { stroke: #77808a; stroke-opacity: .3 }
    .one { stroke: #77808a }
    .better { fill: #2f81f7 }
    .worse { fill: #d1642e }
    .spread { stroke: #77808a; stroke-width: 2 }
    @media (prefers-color-scheme: light) { text { fill: #1f2328 } }
    @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
"""


def read(path, wanted):
    try:
        results = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        sys.exit(f"draw.py: cannot read {path}: {error.strerror}; run run.py first")
    series = wanted or (results[-1]["series"] if results else None)
    results = [result for result in results if result["series"] == series]
    if not results:
        sys.exit(f"draw.py: {path} has no results of the series {series}")
    return results


def rows_of(results, work):
    """Of each metric: title, both medians as text, how many times better payrelay is: median, min, max."""
    sides = [[r for r in results if r["work"] == work and r["server"] == server] for server in SERVERS]
    pairs = list(zip(*sides))
    rows = []
    for title, figure, unit in METRICS:
        if title in LEFT_OUT or not pairs:
            continue
        ours, theirs = ([figure(pair[side]) for pair in pairs] for side in (0, 1))
        if min(ours + theirs) <= 0:
            continue
        better = [a / b if title in MORE_IS_BETTER else b / a for a, b in zip(ours, theirs)]
        # At a fixed rate both accept what is sent: nothing to compare.
        if title == "accepted" and pairs[0][0]["report"]["rate"]:
            continue
        figures = f"{shown(statistics.median(ours), unit)} : {shown(statistics.median(theirs), unit)}"
        rows.append((title, figures, statistics.median(better), min(better), max(better)))
    return rows


def draw(results):
    works = [(work, rows_of(results, work)) for work in WORKS]
    works = [(work, rows) for work, rows in works if rows]
    extremes = [abs(math.log2(value)) for _, rows in works for row in rows for value in row[2:]]
    octaves = max(1, math.ceil(max(extremes, default=1)))
    middle = (LEFT + WIDTH - RIGHT) / 2
    unit = (WIDTH - RIGHT - LEFT) / 2 / octaves

    def x(ratio):
        return round(middle + unit * math.log2(ratio), 1)

    out, y = [], 26
    first = results[0]
    out.append(f'<text class="title" x="10" y="{y}">payrelay against the article\'s design, on one machine</text>')
    y += 20
    about = f"{first['series'][:10]}, {first['machine']}, payrelay's inbox: {first['store']}, {first['secs']} s a run, " \
            f"medians of {max(r['rep'] for r in results)}"
    out.append(f'<text class="small" x="10" y="{y}">{escape(about)}</text>')
    y += 17
    out.append(f'<text class="small" x="10" y="{y}">A bar to the right: payrelay is so many times better (more payments, '
               'or less time or CPU); to the left: so many times worse. Thin line: min to max.</text>')
    y += 24
    top = y - 4
    bars = []
    for work, rows in works:
        y += 8
        bars.append(f'<text class="work" x="10" y="{y + 12}">{escape(work + ": " + WORKS[work][0])}</text>')
        y += ROW
        for title, figures, median, least, most in rows:
            left, right = sorted((x(1), x(median)))
            line = y + BAR / 2
            kind = "better" if median >= 1 else "worse"
            bars.append(f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(title)}</text>')
            bars.append(f'<rect class="{kind}" x="{left}" y="{y}" width="{round(max(1, right - left), 1)}" height="{BAR}"/>')
            bars.append(f'<line class="spread" x1="{x(least)}" y1="{line}" x2="{x(most)}" y2="{line}"/>')
            bars.append(f'<text x="{WIDTH - RIGHT + 12}" y="{y + 12}">{median:.2f}×   '
                        f'<tspan class="small">{escape(figures)}</tspan></text>')
            y += ROW
    for octave in range(-octaves, octaves + 1):
        at, name = x(2 ** octave), f"1/{2 ** -octave}" if octave < 0 else str(2 ** octave)
        kind = "one" if octave == 0 else "grid"
        out.append(f'<line class="{kind}" x1="{at}" y1="{top}" x2="{at}" y2="{y}"/>')
        out.append(f'<text class="small" x="{at}" y="{y + 14}" text-anchor="middle">{name}×</text>')
    out.append(f'<text class="small" x="{WIDTH - RIGHT + 24}" y="{y + 14}">times better, then payrelay : article</text>')
    height = y + 26
    body = "\n".join("  " + element for element in out + bars)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'role="img">\n  <title>payrelay against the article\'s design</title>\n  <style>{STYLE}  </style>\n{body}\n</svg>\n')


def main():
    parser = argparse.ArgumentParser(description="Draws one series of run.py's results as an SVG.")
    parser.add_argument("out", type=Path, help="the SVG to write")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "results.jsonl")
    parser.add_argument("--series", help="when the series began, as it stands in the results (default: the last one)")
    arguments = parser.parse_args()
    arguments.out.write_text(draw(read(arguments.results, arguments.series)))


if __name__ == "__main__":
    main()
