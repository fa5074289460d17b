"""Whether a world takes an action. Owns the rules; knows no sockets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from lightcone_client.errors import ActionError
from lightcone_client.messages import WorldInfo


def checked_action(
    world: WorldInfo, buttons: Iterable[str], axes: Mapping[str, float] | None
) -> tuple[list[str], dict[str, float]]:
    """Return the held buttons (one name or several) and the axis movements as they are sent.

    Raises ActionError for a button or axis that the world does not have, or a movement that is not a finite number.
    """
    held = [buttons] if isinstance(buttons, str) else list(buttons)
    for button in held:
        _check_name("button", button, [button.name for button in world.buttons], world)
    moved = {}
    for axis, movement in (axes or {}).items():
        _check_name("axis", axis, [axis.name for axis in world.axes], world)
        try:
            moved[axis] = float(movement)
        except (TypeError, ValueError):
            moved[axis] = math.nan
        if not math.isfinite(moved[axis]):
            raise ActionError(f"axis {axis!r} is to move by {movement!r}: give a finite number")
    return held, moved


def _check_name(what: str, name: str, known: Sequence[str], world: WorldInfo) -> None:
    if name not in known:
        raise ActionError(f"{what} {name!r}: {world.name} has {', '.join(known) or 'none'}")
