"""Pong's probes: objects detected in pictures, compared with the emulator. Owns the detector and Pong's figures.

px is 1/64 of the frame's height or width. The ball is bright in the blue channel, where paddles and field are dark.
The paddles' columns are ignored, since a ball there cannot be distinguished from the edge of a paddle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIELD_TOP = 16
PADDLE_COLUMNS, ENEMY_COLUMNS = slice(70, 72), slice(8, 10)
FIELD_BLUE, BALL_PEAK, BALL_MASS = 17.0, 50.0, 80.0
RESPONSE_FRAMES = 4
FULL_MOVE = 8.0
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """Detected positions in pixels of the 96×80 frame, per frame `n t`; NaN where nothing was found."""

    ball_x: Floats
    ball_y: Floats
    paddle_y: Floats


def detect(frames: Pixels) -> Seen:
    """Detect the ball and the player's paddle in frames uint8 `n t 96 80 3`."""
    flat = frames.reshape(-1, *frames.shape[2:])
    ball = np.array([_find_ball(frame) for frame in flat]).reshape(*frames.shape[:2], 2)
    paddle = np.array([_find_paddle(frame) for frame in flat]).reshape(frames.shape[:2])
    return Seen(ball[..., 0], ball[..., 1], paddle)


def _find_ball(frame: Pixels) -> tuple[float, float]:
    blue = frame[FIELD_TOP:, :, 2].astype(np.float64) - FIELD_BLUE
    blue[blue < BALL_PEAK] = 0.0
    blue[:2] = 0.0  # the blurred edge of the white border
    for columns in (PADDLE_COLUMNS, ENEMY_COLUMNS):
        blue[:, columns.start - 1 : columns.stop + 1] = 0.0
    row, column = np.unravel_index(int(blue.argmax()), blue.shape)
    rows = slice(max(int(row) - 2, 0), int(row) + 3)
    columns = slice(max(int(column) - 2, 0), int(column) + 3)
    patch = blue[rows, columns]
    mass = patch.sum()
    if mass < BALL_MASS:
        return np.nan, np.nan
    y, x = np.mgrid[rows.start : rows.start + patch.shape[0], columns.start : columns.start + patch.shape[1]]
    return float((patch * x).sum() / mass), float((patch * y).sum() / mass) + FIELD_TOP


def _find_paddle(frame: Pixels) -> float:
    strip = frame[FIELD_TOP:, PADDLE_COLUMNS].astype(np.float64).mean(axis=1)
    green = np.clip((strip[:, 1] - strip[:, 0]) / 94.0, 0.0, 1.0)
    if green.sum() < 0.5:
        return float("nan")
    return float((green * np.arange(len(green))).sum() / green.sum()) + FIELD_TOP


def check_detector(frames: Pixels, reconstructed: Pixels) -> dict[str, float]:
    """Compare the detector on codec reconstructions with the detector on the true frames."""
    truth, seen = detect(frames), detect(reconstructed)
    shown = ~np.isnan(truth.ball_x)
    found = shown & ~np.isnan(seen.ball_x)
    return {
        "detector_ball_present": float(found.sum() / shown.sum()),
        "detector_ball_error_px": float(_ball_distance(truth, seen)[found].mean()),
        "detector_paddle_error_px": float(np.nanmean(_paddle_distance(truth, seen))),
    }


def pong_figures(truth_frames: Pixels, frames: Pixels, buttons: NDArray[np.bool_]) -> dict[str, float]:
    """Return the figures of free-running clips `n t 96 80 3` under the emulator's actions `n t 2`."""
    truth, seen = detect(truth_frames), detect(frames)
    early = np.zeros(truth.ball_x.shape, bool)
    early[:, :32] = True
    shown = ~np.isnan(truth.ball_x) & early
    found = shown & ~np.isnan(seen.ball_x)
    paddle = _paddle_distance(truth, seen)
    missing = np.isnan(paddle) & ~np.isnan(truth.paddle_y)
    paddle = np.where(missing, 64.0, paddle)  # a lost paddle counts as the largest possible error
    return {
        "paddle_error_px_mean": float(np.nanmean(paddle)),
        "ball_present_ratio": float(found.sum() / shown.sum()),
        "ball_error_px_median": float(np.median(_ball_distance(truth, seen)[found])) if found.any() else float("nan"),
        "action_response_ratio": action_response(truth.paddle_y, seen.paddle_y, buttons),
    }


def agreement(truth_frames: Pixels, frames: Pixels) -> float:
    """Return how near ball and paddle of clips `n t 96 80 3` are to the true ones; 1 is perfect.

    The nearness of an object in a frame is 1 / (1 + distance in px), or 0 if it is in only one of the two pictures. It
    is averaged over the frames with the object in either picture, then over ball and paddle.

    Every frame counts, so that a lost ball, a spurious ball and a large error all lower the figure; a median would hide
    them.
    """
    truth, seen = detect(truth_frames), detect(frames)
    ball = _nearness(_ball_distance(truth, seen), ~np.isnan(truth.ball_x) | ~np.isnan(seen.ball_x))
    return (ball + _nearness(_paddle_distance(truth, seen), ~np.isnan(truth.paddle_y) | ~np.isnan(seen.paddle_y))) / 2


def _nearness(distance: Floats, counted: NDArray[np.bool_]) -> float:
    near = np.where(np.isnan(distance), 0.0, 1.0 / (1.0 + np.nan_to_num(distance)))
    return float(near[counted].mean()) if counted.any() else 1.0


def action_response(
    truth_y: Floats,
    seen_y: Floats,
    buttons: NDArray[np.bool_],
    first: int = 1,
    *,
    stops: tuple[float, float] | None = None,
) -> float:
    """Return the share of action changes after which the paddle moves in the emulator's direction.

    Only changes after which the emulator's paddle moves by at least 1 px count; NaN if none counts. stops: the paddle's
    highest and lowest position. Once the two paddles differ, one may be at a stop and unable to move although the world
    is right; so with `stops` a change does not count if either paddle is within one full-speed move of the stop that it
    would move towards.
    """
    agree, count = 0, 0
    px = 96 / 64
    for row in range(len(truth_y)):
        flips = np.flatnonzero((buttons[row, first:] != buttons[row, first - 1 : -1]).any(-1)) + first
        for t in flips:
            end = t + RESPONSE_FRAMES - 1
            if end >= truth_y.shape[1]:
                continue
            true_move, move = truth_y[row, end] - truth_y[row, t - 1], seen_y[row, end] - seen_y[row, t - 1]
            if np.isnan(true_move) or abs(true_move) < px:
                continue
            if stops and _at_stop((truth_y[row, t - 1], seen_y[row, t - 1]), true_move, stops):
                continue
            count += 1
            agree += int(not np.isnan(move) and np.sign(move) == np.sign(true_move))
    return agree / count if count else float("nan")


def _at_stop(places: tuple[float, float], move: float, stops: tuple[float, float]) -> bool:
    """Return whether either place is within a full-speed move of the stop in the direction of `move`; NaN never is."""
    top, bottom = stops
    return any(place > bottom - FULL_MOVE if move > 0 else place < top + FULL_MOVE for place in places)


def response_over_time(truth_frames: Pixels, frames: Pixels, buttons: NDArray[np.bool_]) -> dict[str, float]:
    """Return the action response in the first and last of ten windows of long clips `n t 96 80 3`.

    Rollouts diverge from the emulator's game; they are still compared with the emulator's paddle, since its motion
    depends on the actions only, not on the ball.
    """
    size = frames.shape[1] // 10
    windows = {"first": slice(0, size), "last": slice(frames.shape[1] - size, None)}
    true_y = {name: detect(truth_frames[:, part]).paddle_y for name, part in windows.items()}
    both = np.concatenate(list(true_y.values()))
    stops = float(np.nanmin(both)), float(np.nanmax(both))
    figures = {
        f"action_response_{name}_window": action_response(
            true_y[name], detect(frames[:, part]).paddle_y, buttons[:, part], stops=stops
        )
        for name, part in windows.items()
    }
    ratio = figures["action_response_last_window"] / max(figures["action_response_first_window"], 1e-6)
    return figures | {"action_response_last_to_first": ratio}


def _ball_distance(a: Seen, b: Seen) -> Floats:
    distance: Floats = np.hypot((a.ball_x - b.ball_x) * 64 / 80, (a.ball_y - b.ball_y) * 64 / 96)
    return distance


def _paddle_distance(a: Seen, b: Seen) -> Floats:
    distance: Floats = np.abs(a.paddle_y - b.paddle_y) * 64 / 96
    return distance
