"""A report's figures as text: Markdown tables, what is printed on a terminal, and a verdict. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CURVES = ("psnr", "psnr_other_actions", "psnr_copy_last", "sharpness_ratio")
PROBED = ("paddle_error_px_mean", "ball_present_ratio", "ball_error_px_median", "action_response_ratio")
TRIVIAL = {
    "last": "the last picture",
    "mean_colour": "the last picture's mean colour",
    "mean_picture": "the mean of all true pictures",
}


def report_text(report: Mapping[str, Any]) -> str:
    """Return a report for a terminal: every figure, the curves and stages as tables, and the verdict."""
    plain = {key: number(value) for key, value in report.items() if isinstance(value, (int, float, str))}
    for key, value in gains(report).items():
        against = f", against {TRIVIAL.get(value['against'], value['against'])}" if "against" in value else ""
        plain[key] = f"{number(value['mean'])} dB, at least {number(value['lower'])} dB{against}"
    for key, value in report.items():
        if isinstance(value, dict) and key not in (*CURVES, "stages") and "lower" not in value:
            plain[key] = ", ".join(f"{name} {number(figure)}" for name, figure in value.items())
    width = max(map(len, plain))
    lines = [f"{key:<{width}}  {value}" for key, value in plain.items()]
    lines += ["", "Free-running frames, by frame (PSNR in dB):", "", *aligned(curve_table(report))]
    if "stages" in report:
        lines += ["", "Results by training stage, on the same starts:", "", *aligned(stage_table(report["stages"]))]
    return "\n".join([*lines, "", *verdict(report)])


def verdict(report: Mapping[str, Any]) -> list[str]:
    """Return in sentences whether the world predicts better than copying, and whether it follows its actions."""
    sentences = [_against_copying(report["psnr"], report["psnr_copy_last"])]
    followed = {key: value["lower"] for key, value in gains(report).items() if key.startswith("psnr_gain_other_")}
    if followed:
        shown = all(lower > 0 for lower in followed.values())
        sentences.append(
            "It follows its actions: under another clip's actions its frames are further from the truth."
            if shown
            else "It is not shown to follow its actions: under another clip's actions its frames are as close to the "
            f"truth at frame {next(key for key, lower in followed.items() if lower <= 0).rsplit('_', 1)[1]}."
        )
    for key, value in gains(report).items():
        if key.startswith("psnr_gain_trivial_") and value["lower"] <= 0:
            frame, against = key.rsplit("_", 1)[1], TRIVIAL.get(value["against"], value["against"])
            sentences.append(f"At frame {frame} it is not shown to be better than {against}.")
    return sentences


def _against_copying(own: Mapping[str, float], copied: Mapping[str, float]) -> str:
    worse = [frame for frame in own if own[frame] <= copied[frame]]
    if not worse:
        frame = next(iter(own))
        gain = own[frame] - copied[frame]
        return f"It predicts better than copying the last frame, at every frame (by {gain:.1f} dB at frame {frame})."
    if len(worse) == len(own):
        return "It is worse than copying the last frame, at every frame: it has not learned to predict."
    return f"It is worse than copying the last frame at frame {', '.join(worse)}, and better at the others."


def gains(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the report's gains with a lower bound, by name."""
    return {key: value for key, value in report.items() if isinstance(value, dict) and "lower" in value}


def curve_table(report: Mapping[str, Any]) -> list[str]:
    """Return the curves by frame, as a Markdown table."""
    names = [name for name in CURVES if name in report]
    frames = list(report[names[0]])
    header = ["| | " + " | ".join(frames) + " |", "|---" * (len(frames) + 1) + "|"]
    return header + [f"| {n} | " + " | ".join(number(report[n].get(f)) for f in frames) + " |" for n in names]


def stage_table(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the figures of teacher and students by stage, as a Markdown table."""
    figures = [name for name in PROBED if any(name in row for row in stages.values())]
    header = "| | PSNR 4 | PSNR 16 | sharpness 16 |" + "".join(f" {name} |" for name in figures)
    lines = [header, "|---" * (4 + len(figures)) + "|"]
    for label, row in stages.items():
        cells = [row["psnr"].get("4"), row["psnr"].get("16"), row["sharpness_ratio"].get("16")]
        cells += [row.get(name) for name in figures]
        lines.append(f"| {label} | " + " | ".join(number(cell) for cell in cells) + " |")
    return lines


def aligned(table: list[str]) -> list[str]:
    """Return a Markdown table as columns for a terminal, without its lines."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table if not line.startswith("|---")]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def number(value: Any) -> str:
    """Return a figure with at most three decimals; nothing for None."""
    if value is None:
        return ""
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
