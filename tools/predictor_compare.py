"""Recovery of weights and of training-free controls on the same rows, each playing for itself."""

from __future__ import annotations

from typing import Callable

import numpy as np

from rollout import Dump, NetworkScore, Rollout, Setting, budget_of, ema, last_step, oracle

EMA_DECAYS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
DEFAULT_EMA = "EMA 0.8"  # the library's
BEST_EMA = "the EMA best in hindsight"


def compare(dump: Dump, chosen: np.ndarray, setting: Setting, shares: list[int],
            networks: dict[str, dict]) -> dict[str, dict]:
    """Recovery per stream, by method and budget; prints mean and worst decile."""
    methods: dict[str, Callable] = {"oracle": oracle, "last step": last_step}
    methods.update({f"EMA {d}": ema(d) for d in EMA_DECAYS})
    rows = dump.take(chosen)
    table: dict[str, dict] = {}
    for name in [*methods, *networks]:
        table[name] = {}
        for share in shares:
            score = methods.get(name) or NetworkScore(networks[name])
            budget = budget_of(rows.shape[2], share, setting)
            recovered = Rollout(rows, dump.first_length, setting, budget).run(score)
            table[name][f"1/{share}"] = {
                "mean": float(recovered.mean()),
                "worst decile": float(np.quantile(recovered, 0.1)),
                "streams": [round(float(r), 5) for r in recovered.mean(axis=0)]}
        print(f"  {name}: " + "  ".join(f"{k} {v['mean']:.4f}/{v['worst decile']:.4f}"
                                        for k, v in table[name].items()), flush=True)
    first, *others = networks
    for name in networks:
        print_lead(table, name, [BEST_EMA, DEFAULT_EMA, "last step"])
    print_lead(table, first, others)
    return table


def print_lead(table: dict[str, dict], name: str, controls: list[str]) -> None:
    """How far a network is ahead of each control, stream by stream, with 1.96 standard errors."""
    for control in controls:
        parts = []
        for share, entry in table[name].items():
            emas = [n for n in table if n.startswith("EMA")]
            best = max(emas, key=lambda n: table[n][share]["mean"])
            other = best if control == BEST_EMA else control
            lead = np.array(entry["streams"]) - np.array(table[other][share]["streams"])
            half = 1.96 * lead.std(ddof=1) / len(lead) ** 0.5 if len(lead) > 1 else float("nan")
            parts.append(f"{share} {lead.mean():+.4f} +- {half:.4f}"
                         + (f" ({other[4:]})" if control == BEST_EMA else ""))
        print(f"  {name} minus {control}: " + "  ".join(parts), flush=True)
