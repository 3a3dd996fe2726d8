"""Make one self-contained HTML page and a Markdown table from the JSON that kvsift-eval writes."""

from __future__ import annotations

import argparse
import html
import json
import sys
from collections import defaultdict
from pathlib import Path

import picture

TASKS = ("needle", "keys", "chain", "copy")
TEXT_FIGURES = (("agreement", 3), ("divergence", 4), ("bits_per_byte", 3))
STYLE = """body{font:15px/1.45 sans-serif;max-width:75em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.6em 0}
td,th{padding:.2em .6em;text-align:right;border:1px solid #ddd}
th:first-child,td:first-child{text-align:left}.maps{display:flex;flex-wrap:wrap;gap:1.2em}
.maps figure{margin:0}figcaption{font-size:13px}.maps td{min-width:2.6em;text-align:center}
img{image-rendering:pixelated;border:1px solid #ddd}.key{display:inline-block;width:1em;height:1em}
small{color:#666}"""


def read_results(path: Path) -> dict:
    try:
        results = json.loads(path.read_text())
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    except ValueError as error:
        sys.exit(f"{path}: not JSON ({error}); expected the file that kvsift-eval wrote")
    missing = {"policies", "tasks", "text", "heads"} - set(results)
    if missing:
        sys.exit(f"{path}: has no {', '.join(sorted(missing))}; expected a file of kvsift-eval")
    return results


def merge(parts: list[dict]) -> dict:
    """One table of runs over the same samples with different methods."""
    whole = {**parts[0], "policies": [], "tasks": [], "text": [], "heads": []}
    for part in parts:
        differing = [name for name, value in whole.items()
                     if not isinstance(value, (list, dict)) and part.get(name) != value]
        if differing:
            sys.exit(f"{', '.join(differing)}: not the same in all files; expected runs that differ "
                     "in their methods alone")
        known = [policy["name"] for policy in whole["policies"]]
        new = {i: len(known) + n for n, i in enumerate(
            i for i, policy in enumerate(part["policies"]) if policy["name"] not in known)}
        whole["policies"] += [part["policies"][i] for i in new]
        for table in ("tasks", "text", "heads"):
            whole[table] += [{**entry, "policy": new[entry["policy"]]}
                             for entry in part[table] if entry["policy"] in new]
        drawn = part.get("picture")
        if drawn and drawn["policy"] in new:
            whole["picture"] = {**drawn, "policy": new[drawn["policy"]]}
    return whole


def task_shares(results: dict) -> dict[tuple[int, str], tuple[int, int]]:
    """(policy, task) -> answers right, answers asked for, over all lengths and depths."""
    sums: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0])
    for cell in results["tasks"]:
        entry = sums[cell["policy"], cell["task"]]
        entry[0] += cell["right"]
        entry[1] += cell["asked"]
    return {key: (right, asked) for key, (right, asked) in sums.items()}


def wilson(right: int, asked: int) -> tuple[float, float]:
    """95% interval of a share."""
    z = 1.959964
    share, spread = right / asked, z * z / asked
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / asked + spread / (4 * asked)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def layer_means(results: dict) -> dict[int, dict[int, dict[str, float]]]:
    """policy -> layer -> means over the rows of its heads."""
    names = ("kept", "recovery", "ceiling", "output_error")
    sums: dict = defaultdict(lambda: defaultdict(lambda: defaultdict(float)))
    for head in results["heads"]:
        entry = sums[head["policy"]][head["layer"]]
        entry["rows"] += head["rows"]
        for name in names:
            entry[name] += head[name] * head["rows"]
    return {policy: {layer: {n: e[n] / e["rows"] for n in names} for layer, e in layers.items()}
            for policy, layers in sums.items()}


def with_interval(entry: dict, name: str, digits: int) -> str:
    """A mean over stretches of text, and half its 95% interval where there are several."""
    text = f"{entry[name]:.{digits}f}"
    low, high = entry.get(f"{name}_low"), entry.get(f"{name}_high")
    return text if low is None or high is None else f"{text} ±{(high - low) / 2:.{digits}f}"


def mean_of(layers: dict[int, dict[str, float]] | None, name: str) -> str:
    if not layers:
        return ""
    return f"{sum(layer[name] for layer in layers.values()) / len(layers):.3f}"


def summary(results: dict) -> tuple[list[str], list[list[str]]]:
    """Heading and one row for each policy."""
    shares, layers = task_shares(results), layer_means(results)
    text = {entry["policy"]: entry for entry in results["text"]}
    head = ["policy", *TASKS, "agreement", "KL (nats)", "bits/byte", "kept", "recovery", "ceiling",
            "output error"]
    rows = []
    for index, policy in enumerate(results["policies"]):
        row = [policy["name"]]
        for task in TASKS:
            if (index, task) not in shares:
                row.append("")
                continue
            right, asked = shares[index, task]
            low, high = wilson(right, asked)
            row.append(f"{100 * right / asked:.0f}% ({100 * low:.0f}-{100 * high:.0f})")
        entry = text.get(index)
        row += [with_interval(entry, name, digits) if entry else "" for name, digits in TEXT_FIGURES]
        row += [mean_of(layers.get(index), n) for n in ("kept", "recovery", "ceiling",
                                                        "output_error")]
        rows.append(row)
    return head, rows


def markdown(results: dict) -> str:
    head, rows = summary(results)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>\n"
                   for row in rows)
    return f"<table><tr>{cells}</tr>\n{body}</table>\n"


def colour(share: float) -> str:
    """Red through yellow to green, light enough for black text."""
    return f"hsl({120 * share:.0f},65%,72%)"


def grid(caption: str, corner: str, columns: list, rows: list[tuple[str, list[str]]]) -> str:
    """A small table of coloured cells, which `shade` makes."""
    head = "".join(f"<th>{name}</th>" for name in columns)
    body = "".join(f"<tr><th>{name}</th>{''.join(cells)}</tr>" for name, cells in rows)
    return (f"<figure><figcaption>{html.escape(caption)}</figcaption>"
            f"<table><tr><th>{corner}</th>{head}</tr>{body}</table></figure>\n")


def shade(share: float, title: str) -> str:
    return (f"<td style='background:{colour(share)}' title='{html.escape(title)}'>"
            f"{100 * share:.0f}</td>")


def heat_map(results: dict, policy: int) -> str:
    cells = {(c["length"], c["depth"]): c for c in results["tasks"]
             if c["task"] == "needle" and c["policy"] == policy}
    if not cells:
        return ""
    lengths = sorted({length for length, _ in cells})
    depths = sorted({depth for _, depth in cells})
    rows = []
    for depth in depths:
        line = [cells.get((length, depth)) for length in lengths]
        rows.append((f"{100 * depth:.0f}%", [
            shade(c["share"], f"{c['right']} of {c['asked']}") if c else "<td></td>" for c in line]))
    return grid(results["policies"][policy]["name"], "depth", lengths, rows)


def head_map(results: dict, policy: int) -> str:
    """Recovery as a share of the ceiling, layer by layer and head by head."""
    cells = {(h["layer"], h["head"]): h for h in results["heads"] if h["policy"] == policy}
    if not cells:
        return ""
    heads = sorted({head for _, head in cells})
    rows = []
    for layer in sorted({layer for layer, _ in cells}):
        line = [cells.get((layer, head)) for head in heads]
        rows.append((str(layer), [
            shade(min(1.0, c["recovery"] / c["ceiling"]), f"{c['recovery']:.3f} of "
                  f"{c['ceiling']:.3f}, output error {c['output_error']:.3f}")
            if c else "<td></td>" for c in line]))
    return grid(results["policies"][policy]["name"], "layer", heads, rows)


def pictures(results: dict) -> str:
    """Of each layer the head that looks back most."""
    drawn = results.get("picture")
    if not drawn or not drawn["heads"]:
        return ""
    legend = ", ".join(
        f"<span class='key' style='background:rgb{picture.MARKS[mark]}'></span> {html.escape(text)}"
        for mark, text in picture.LEGEND.items())
    figures = ""
    for layer in sorted({head["layer"] for head in drawn["heads"]}):
        head = max((h for h in drawn["heads"] if h["layer"] == layer), key=picture.looks_back)
        figures += (f"<figure><figcaption>layer {layer}, head {head['head']}</figcaption>"
                    f"{picture.image_tag(head)}</figure>\n")
    name = html.escape(results["policies"][drawn["policy"]]["name"])
    return (f"<h2>What was attended to and what was chosen: {name}</h2>"
            f"<p>A line is a decode step, the first on top; a column is a block of "
            f"{drawn['block_tokens']} tokens. The darker, the larger the block's largest share of "
            f"full attention (logarithmic). The mark within: {legend}. Shown is the head of each "
            f"layer that looks back most.</p><div class='maps'>{figures}</div>")


def recovery_table(results: dict) -> str:
    layers = layer_means(results)
    every = sorted({layer for of_policy in layers.values() for layer in of_policy})
    head = ["policy", *(f"layer {layer}" for layer in every)]
    rows = []
    for policy, of_policy in layers.items():
        row = [results["policies"][policy]["name"]]
        for layer in every:
            entry = of_policy.get(layer)
            row.append(f"{entry['recovery']:.2f} of {entry['ceiling']:.2f}, "
                       f"error {entry['output_error']:.2f}" if entry else "")
        rows.append(row)
    return table(head, rows)


def page(results: dict) -> str:
    head, rows = summary(results)
    settings = ", ".join(f"{name} {value}" for name, value in results.items()
                         if not isinstance(value, list))
    every = range(len(results["policies"]))
    maps = "".join(heat_map(results, i) for i in every)
    heads = "".join(head_map(results, i) for i in every)
    return (f"<!doctype html><html lang='en'><meta charset='utf-8'><title>kvsift-eval</title>"
            f"<style>{STYLE}</style><body><h1>Methods against full attention</h1>"
            f"<p><small>{html.escape(settings)}</small></p>"
            "<h2>Summary</h2><p>Tasks: exact answers with 95% intervals. Agreement, KL and bits "
            "per byte: along held-out text, against full attention. Kept, recovery, ceiling, output "
            "error: means over layers; the ceiling is the best choice of as many whole blocks.</p>"
            + table(head, rows)
            + "<h2>Needle: exact answers in percent, by depth and context length</h2>"
            + f"<div class='maps'>{maps}</div>"
            + "<h2>Attention mass recovered, of the best possible, layer by layer</h2>"
            + recovery_table(results)
            + "<h2>Share of the best possible that was recovered, head by head</h2>"
            + f"<div class='maps'>{heads}</div>" + pictures(results) + "</body></html>\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+",
                        help="JSON file of kvsift-eval, or several of different methods")
    parser.add_argument("--html", type=Path, help="page to write")
    parser.add_argument("--markdown", type=Path, help="table to write (default: to the terminal)")
    args = parser.parse_args()
    results = merge([read_results(path) for path in args.results])
    try:
        if args.html:
            args.html.write_text(page(results))
        if args.markdown:
            args.markdown.write_text(markdown(results))
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
    if not args.markdown:
        print(markdown(results), end="")


if __name__ == "__main__":
    main()
