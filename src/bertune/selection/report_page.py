"""One page of HTML that needs nothing else: style, sorting of tables, and the pieces a report is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from bertune.selection.trial_text import printable

LONG = 36
"""Characters of a cell from which it may be cut."""


def text(value: object) -> str:
    """Return a value as text of a page: nothing in it is taken for HTML."""
    return escape(printable(str(value)))


def section(title: str, *parts: str) -> str:
    """Return a section with a heading; the parts are HTML."""
    return f"<section><h2>{text(title)}</h2>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def paragraph(words: str, kind: str = "") -> str:
    """Return a paragraph of plain text."""
    return f"<p{f' class={kind}' if kind else ''}>{text(words)}</p>"


def code(line: str) -> str:
    """Return a line to type."""
    return f"<pre><code>{text(line)}</code></pre>"


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    kinds: Sequence[str] = (),
    num_left: int = 1,
    sortable: bool = False,
    wraps: bool = False,
) -> str:
    """Return a table of plain texts, which scrolls where it is too wide.

    Args:
        header: names of the columns.
        rows: cells by column; a pair is what is shown, and the number that it is sorted by.
        kinds: class of each row.
        num_left: columns from the left that stand to the left; the others stand to the right.
        sortable: whether a click on the name of a column sorts.
        wraps: show long texts whole, over several lines; else they are cut, and whole on pointing at them.
    """
    head = "".join(f"<th{_side(i, num_left)} scope=col>{text(name)}</th>" for i, name in enumerate(header))
    body = []
    for i, row in enumerate(rows):
        kind = f" class={kinds[i]}" if i < len(kinds) and kinds[i] else ""
        cells = "".join(_cell(cell, _side(place, num_left)) for place, cell in enumerate(row))
        body.append(f"<tr{kind}>{cells}</tr>")
    kind = " ".join(name for name, holds in (("sortable", sortable), ("wraps", wraps)) if holds)
    kind = f' class="{kind}"' if kind else ""
    lines = "\n".join(body)
    scrolls = '"scroll long"' if sortable else "scroll"
    return (
        f"<div class={scrolls} tabindex=0><table{kind}><thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{lines}\n</tbody></table></div>"
    )


def _side(place: int, num_left: int) -> str:
    return " class=left" if place < num_left else ""


def _cell(cell: object, side: str) -> str:
    if isinstance(cell, tuple):
        shown, number = cell
        return f'<td{side} data-value="{text(number)}">{text(shown)}</td>'
    words = text(cell)
    whole = f' title="{words}"' if len(words) > LONG else ""
    return f"<td{side}{whole}>{words}</td>"


def details(summary: str, content: str, *, is_open: bool = False) -> str:
    """Return content that is shown on a click; it is HTML."""
    return f"<details{' open' if is_open else ''}><summary>{text(summary)}</summary>\n{content}\n</details>"


def figure(svg: str, label: str, about: str) -> str:
    """Return a picture with words below it.

    Args:
        svg: the picture.
        label: what it shows, for those who cannot see it.
        about: how to read it.
    """
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{text(label)}"', 1)
    caption = f"<figcaption>{text(about)}</figcaption>" if about else ""
    return f"<figure>{svg}{caption}</figure>"


def card(number: str, title: str, words: str, kind: str = "") -> str:
    """Return a number with its name and what it means."""
    return (
        f'<div class="card {kind}"><div class=name>{text(title)}</div><div class=number>{text(number)}</div>'
        f"<div>{text(words)}</div></div>"
    )


def page(title: str, subtitle: str, sections: Iterable[str]) -> str:
    """Return the whole page."""
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{text(title)}</h1>\n{paragraph(subtitle, 'sub')}\n{body}\n</main>\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


STYLE = """
:root { --back: #fff; --text: #1b1f24; --soft: #59636e; --line: #d8dce0; --panel: #f5f7f9; --good: #e7f3ec;
  --mark: #00704e; --grid: #d8dce0; --trial: #0072b2; --best: #d55e00; --pruned: #8a9199; --failed: #b0005a; }
@media (prefers-color-scheme: dark) { @media screen { :root { --back: #14171a; --text: #e4e7ea;
  --soft: #a3acb5; --line: #343a41; --panel: #1d2125; --good: #16302a; --mark: #5fd0a5; --grid: #343a41;
  --trial: #56b4e9; --best: #f5a742; --pruned: #858d96; --failed: #f07cb8; } } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.5 system-ui, -apple-system,
  "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
p { margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
.sub, figcaption, summary, .soft { color: var(--soft); }
.sub { margin-top: .2rem; }
.note { border-left: 3px solid var(--best); padding-left: .7rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 16rem), 1fr)); gap: .8rem;
  margin: .8rem 0; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem;
  font-size: .9rem; }
.card.honest { background: var(--good); border-color: var(--mark); }
.card .name { font-weight: 600; } .card.honest .name { color: var(--mark); }
.card .number { font-size: 1.9rem; line-height: 1.3; font-weight: 650; font-variant-numeric: tabular-nums; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem;
  overflow-x: auto; } code { font: .9rem ui-monospace, Consolas, "DejaVu Sans Mono", monospace; }
.scroll { overflow-x: auto; margin: .5rem 0; } .long { max-height: 34rem; overflow-y: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  max-width: 22rem; overflow: hidden; text-overflow: ellipsis; vertical-align: top; }
.wraps td { white-space: normal; overflow-wrap: anywhere; max-width: none; min-width: 7rem; }
.wraps td:first-child { white-space: nowrap; overflow-wrap: normal; }
th { position: sticky; top: 0; background: var(--back); font-weight: 600; color: var(--soft); }
.left { text-align: left; }
.sortable th { cursor: pointer; } .sortable th[aria-sort] { color: var(--text); }
.sortable th[aria-sort=ascending]::after { content: " \\2191"; }
.sortable th[aria-sort=descending]::after { content: " \\2193"; }
tr.best td { background: var(--good); font-weight: 600; } tr.weak td { color: var(--soft); }
figure { margin: .8rem 0 .2rem; } figcaption { font-size: .85rem; max-width: 46rem; }
figure svg { display: block; width: 100%; height: auto; max-width: 38rem; }
figure svg text { font-family: inherit; }
.slices { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr));
  gap: .6rem; }
.slices > div { min-width: 0; }
summary { cursor: pointer; font-size: .9rem; padding: .3rem 0; }
@media (max-width: 40rem) { th, td { padding: .25rem .45rem; } table { font-size: .82rem; } }
@media print { body { font-size: 11pt; } main { max-width: none; padding: 0; } .scroll { max-height: none;
  overflow: visible; } figure, .card, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  th { position: static; } table { font-size: 8pt; } th, td { white-space: normal; overflow-wrap: anywhere;
  padding: .1rem .3rem; } .long :is(td, th):nth-child(-n+5) { white-space: nowrap; }
  .long td[data-value] { white-space: nowrap; } p:has(+ pre) { break-after: avoid; } }
"""
SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const value = (row, i) => {
    const cell = row.cells[i], shown = cell.dataset.value ?? cell.textContent;
    return shown === "" || shown === "-" ? null : isNaN(shown) ? shown : Number(shown);
  };
  const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) :
    typeof a === "number" ? -1 : 1;
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    const sort = () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      [...body.rows].map(row => [value(row, i), row]).sort(([a], [b]) =>
        a === null ? (b === null ? 0 : 1) : b === null ? -1 : falls ? compare(b, a) : compare(a, b)
      ).forEach(([, row]) => body.append(row));
    };
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
  });
}
"""
