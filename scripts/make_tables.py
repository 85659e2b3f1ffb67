"""Tables of README and docs, made of the recorded results: ``python scripts/make_tables.py`` writes them between their markers.

A marker is ``<!-- table: NAME -->`` up to ``<!-- end: NAME -->``. ``--check`` writes nothing, and fails where one is not current.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from heirmark.report.sections.catches import catches_markdown
from heirmark.report.sections.glance import SIGNS, glance_markdown
from heirmark.report.words import markdown_lines
from heirmark.results.rows import read_rows

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
MARKED = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end: (?P=name) -->)", re.DOTALL)
VARIANTS = {
    "forward": "forward",
    "difference": "difference",
    "forward_one_graph": "forward, one graph",
    "difference_one_graph": "difference, one graph",
    "closed_form": "closed form",
    "closed_form_apart": "closed form, both gradients apart",
    "double_backward": "double backward",
    "plain_step": "plain step",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, of cells that are Markdown already."""
    return "\n".join(markdown_lines([head, ["---"] * len(head), *rows]))


def read(name: str) -> dict[str, Any]:
    """A recorded result."""
    found: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return found


def source(name: str, facts: Mapping[str, Any], more: str = "") -> str:
    """The line below a table that says where it comes from."""
    versions = facts["versions"]
    told = [facts["date"], f"torch {versions['torch']}", versions["precision"], facts["machine"]]
    return f"{more}[results/{name}](LINK/{name}) has the command and the rows ({', '.join(told)})."


def mark(marked: int, seeds: int) -> str:
    """How many seeds are called marked, by the signs of a report."""
    return SIGNS["all" if marked == seeds else "some" if marked else "none"]


def percent(value: float) -> str:
    """In percent, without a decimal that means nothing over three seeds."""
    return f"{100 * value:.0f}"


def demo() -> str:
    """The demo's suspects over seeds, as ``heirmark demo --out results/demo`` writes them."""
    facts, judged = read("demo/run.json")["provenance"], json.loads((RESULTS / "demo/results.json").read_text())
    suspects: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    others = [row for row in judged if ", " in row["suspect"]]  # unmarked models before a further key
    for row in judged:
        if row not in others:
            suspects.setdefault((row["suspect"], row.get("trial", "")), []).append(row)
    lines, seeds = [], len({row["seed"] for row in judged})
    for (name, trial), rows in suspects.items():
        shares = [[row["accuracy"] for row in rows], [row["verdict"]["wsr"] for row in rows]]
        marked = sum(row["verdict"]["outcome"] == "MARKED" for row in rows)
        told = [
            f"{100 * sum(each) / len(each):.1f}" + (f" [{100 * min(each):.1f}]" if seeds > 1 else "") for each in shares
        ]
        lines.append([name + (f" ({trial})" if trial else ""), *told, f"{marked} of {len(rows)}"])
    where = (
        "[results/demo/run.json](LINK/demo/run.json) has the command, [results.json](LINK/demo/results.json) the rows"
    )
    made = f"({facts['date']}, torch {facts['torch']}, {facts['precision']}, {facts['processor']}, threads: {facts['threads']})"
    alarms = sum(row["verdict"]["outcome"] == "MARKED" for row in others)
    words = (
        f"ACC and WSR on held-out triggers in %: {'mean over the seeds [worst]' if seeds > 1 else 'one seed'}. Of {len(others)} "
        f"judgements of unmarked models by the vanilla key, which are left out, {alarms} said marked."
    )
    return f"{table(['model', 'ACC', 'WSR', 'called marked'], lines)}\n{words} {where} {made}."


def demo_of_t2s() -> str:
    """The suspects of a demo of before, which showed T2S, over seeds."""
    found = read("demo-t2s.json")
    rows = [
        [
            row["suspect"] + ("" if row["answers"] == "none" else f" ({row['answers']})"),
            *(f"{100 * row[f'{what}_mean']:.1f} [{100 * row[f'{what}_worst']:.1f}]" for what in ("accuracy", "wsr")),
            f"{row['marked']} of {row['seeds']}",
        ]
        for row in found["summary"]
    ]
    words = "ACC and WSR on held-out triggers in %: mean over the seeds [worst]. "
    seeds = " ".join(f"--seed {seed}" for seed in range(max(row["seeds"] for row in found["summary"])))
    again = f" Today `heirmark demo --methods t2s {seeds}` has T2S, with thieves that train for six epochs instead of eight."
    return table(["model", "ACC", "WSR", "called marked"], rows) + f"\n{words}" + source("demo-t2s.json", found) + again


def methods(name: str) -> str:
    """Methods by thief: what became of the mark and of the accuracy."""
    found = read(name)
    rows = [row for row in found["summary"] if "suspect" in row and not row["suspect"].startswith("unmarked")]
    columns = list(dict.fromkeys(row["suspect"] for row in rows))
    cells = {(row["method"], row["suspect"]): row for row in rows}
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        lines.append([method, *(method_cell(cells.get((method, column))) for column in columns)])
        for paper, printed in found["papers"].get(method, {}).items():
            printed = {re.sub("with other data", "with cifar10", column): pair for column, pair in printed.items()}
            lines.append([f"… {paper}", *(printed_cell(printed.get(column)) for column in columns)])
    return (
        table(["method", *columns], lines)
        + "\n● all seeds called marked, ◐ some, ○ none; mean WSR [worst seed], ACC; in %. "
        + source(name, found)
    )


def method_cell(row: Mapping[str, Any] | None) -> str:
    """One method and thief."""
    if row is None:
        return ""
    sign = mark(row["marked"], row["seeds"])
    return f"{sign} {percent(row['wsr_mean'])} [{percent(row['wsr_worst'])}], {percent(row['accuracy_mean'])}"


def printed_cell(pair: Sequence[float] | None) -> str:
    """What a paper prints, ACC and WSR in percent."""
    return "" if pair is None else f"{pair[1]:.0f}, {pair[0]:.0f}"


def hypergradient(name: str = "hypergradient.json") -> str:
    """Cost of one step, by net and variant."""
    found = read(name)
    rows = []
    for net, measured in found["nets"].items():
        for variant, words in VARIANTS.items():
            if (one := measured["variants"].get(variant)) is None:
                continue
            error = one.get("relative_error")
            rows.append(
                [
                    net,
                    words,
                    *(
                        f"{one[f'{what}_vs_{rival}']:.2f}"
                        for rival in ("double_backward", "plain_step")
                        for what in ("time", "memory")
                    ),
                    "–" if error is None else f"{error:.0e}",
                ]
            )
    head = ["net", "variant", "time / double backward", "memory / double backward", "time / plain step"]
    facts = found["provenance"]
    return (
        table([*head, "memory / plain step", "relative error"], rows)
        + f"\nBatch {facts['batch']} with {facts['triggers']} triggers. "
        + source(name, facts)
    )


def t2s_map() -> str:
    """Points of eq. 9: what a rehearsal makes of the model, of the simulated thief, and of real copies."""
    found = read("t2s_map.json")
    start, before, slopes = found["start"]["vanilla"], found["rows"][0]["before"], found["slopes"]

    def stolen(name: str) -> list[str]:
        copies = found["thefts"].get(name, {})
        if not found["thefts"]:
            return []
        return [percent(copies[answers]["wsr"]) if answers in copies else "" for answers in ("probabilities", "label")]

    def line(name: str, steps: int, told: Mapping[str, float], student: float, loss: float) -> list[str]:
        shares = [percent(share) for share in (told["accuracy"], told["wsr"], told["controls"], student)]
        return [name, f"{steps:,}", *shares, f"{loss:.1f}", *stolen(name)]

    rows = [
        line("before the rehearsal", 0, start, before["student_wsr"], slopes["watermark_loss"]),
        *(
            line(row["name"], row["steps"], row["target"], row["after"]["student_wsr"], row["after"]["watermark_loss"])
            for row in found["rows"]
        ),
    ]
    head = ["point", "steps", "accuracy", "model's mark", "without the trigger", "simulated thief's", "its loss"]
    head += ["copy's, by probabilities", "by labels"] if found["thefts"] else []
    return (
        table(head, rows)
        + "\nWSR and accuracy in %, seed 12; the loss is an epoch's mean. "
        + source("t2s_map.json", found)
    )


def bench(folder: str) -> str:
    """A recorded grid at a glance."""
    where = f"LINK/bench/{folder}"
    told = glance_markdown(read_rows(RESULTS / "bench" / folder / "rows.jsonl"))
    return f"{told}\n[The tables]({where}/tables.md), [the rows]({where}/rows.jsonl)."


def caught(folder: str) -> str:
    """Who is caught in a recorded grid, and what that costs."""
    told = catches_markdown(read_rows(RESULTS / "bench" / folder / "rows.jsonl"))
    return f"{told}\n[The rows](LINK/bench/{folder}/rows.jsonl)."


FOLDERS = [path.name for path in sorted((RESULTS / "bench").iterdir())]
TABLES: dict[str, Callable[[], str]] = {
    "demo": demo,
    "demo-t2s": demo_of_t2s,
    **{f"bench-{name}": partial(bench, name) for name in FOLDERS},
    **{f"catches-{name}": partial(caught, name) for name in FOLDERS},
    "methods": lambda: methods("methods.json"),
    "methods-vgg": lambda: methods("methods-vgg.json"),
    "thieves": lambda: methods("thieves.json"),
    "hypergradient": hypergradient,
    "closed-form-step": partial(hypergradient, "closed-form-step.json"),
    "t2s-map": t2s_map,
}


def current(text: str, page: Path) -> str:
    """A page with its tables as they should be."""
    link = "results" if page.parent == ROOT else "../results"

    def made(found: re.Match[str]) -> str:
        return f"{found[1]}\n{TABLES[found['name']]().replace('LINK', link)}\n\n{found[3]}"

    return MARKED.sub(made, text)


def main(check: bool) -> int:
    """Write all tables, or only say which are not current."""
    stale = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text()
        if (wanted := current(text, page)) != text:
            stale.append(page.name)
            if not check:
                page.write_text(wanted)
    print(", ".join(stale) or "all current")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
