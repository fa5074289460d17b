"""`lightcone bench serve --attacks`: how many frames steady players lose while others attack the server.

Each kind of `benchmarks.attackers` attacks alone, then all at once. The control of each attack is the same number of
processes that only spin, for as much of the time as the attackers used a core. Owns the comparison; `benchmarks.serve`
measures. The server uses its own limits and its admission, since these are what is tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.attackers import ATTACKS
from benchmarks.serve import Load, measure

SLOTS = 8


def attacked(load: Load, num_steady: int, kinds: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each kind alone and, if there are several, for all at once.

    lost: the part of the control's frames that the steady players did not get; ended: how the attackers fared.
    """
    load = replace(load, admission=True, guarded=True, max_sessions=load.max_sessions or SLOTS)
    together = [list(kinds)] if len(kinds) > 1 else []
    for attackers in [[kind] for kind in kinds] + together:
        row = measure(load, ["steady"] * num_steady + attackers)
        duty = sum(row["others"][kind]["duty"] for kind in attackers) / len(attackers)
        control = measure(replace(load, duty=duty), ["steady"] * num_steady + ["spinning"] * len(attackers))
        yield {
            "attackers": attackers,
            "fps_per_session": row["fps_per_session"],
            "control_fps_per_session": control["fps_per_session"],
            "lost": round(1 - row["fps_total"] / control["fps_total"], 4) if control["fps_total"] else None,
            "p99_ms": row["action_to_frame_ms_p99"],
            "control_p99_ms": control["action_to_frame_ms_p99"],
            "duty": duty,
            "errors_logged": row["errors_logged"],
            "rss_mb": row["rss_mb"],
        }


def text(row: dict[str, Any]) -> str:
    lost = "nothing to compare with" if row["lost"] is None else f"{row['lost']:.1%} lost"
    who = "all at once" if len(row["attackers"]) == len(ATTACKS) else " + ".join(row["attackers"])
    return (
        f"{who:<12} {lost}: {min(row['fps_per_session']):.1f} frames/s at least, control "
        f"{min(row['control_fps_per_session']):.1f}; p99 {row['p99_ms']:.0f} ms, control {row['control_p99_ms']:.0f}; "
        f"the attackers used {row['duty']:.0%} of a core each; {row['errors_logged']} errors logged"
    )
