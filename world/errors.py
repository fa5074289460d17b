"""The error tree of the world package. Owns the exceptions that users may catch.

LightconeError
├── CheckpointError     a checkpoint folder is missing, incomplete or of another version
├── ShapeError          frames, latents or actions do not have the shape the world needs
├── PictureError        something is not a picture, or one whose meaning is unclear
├── ActionError         an action names a button the world does not have
├── RangeError          a number is not finite, or outside its range
├── StateError          bytes are not a saved session, or one of another format
├── PatternError        an attention pattern cannot be built, or would break causality
└── CompilationError    passes cannot be compiled on this machine
"""


class LightconeError(Exception):
    """Base of every error this project raises for its users."""


class CheckpointError(LightconeError):
    """A checkpoint folder is missing, incomplete or of another version."""


class ShapeError(LightconeError, ValueError):
    """Frames, latents or actions do not have the shape the world needs."""


class PictureError(LightconeError, ValueError):
    """Something is not a picture, or one whose meaning is unclear."""


class ActionError(LightconeError, ValueError):
    """An action names a button or axis the world does not have."""


class RangeError(LightconeError, ValueError):
    """A number is not finite, or outside its range."""


class StateError(LightconeError, ValueError):
    """Bytes are not a saved session, or one of another format."""


class PatternError(LightconeError, ValueError):
    """An attention pattern cannot be built, or would break causality."""


class CompilationError(LightconeError):
    """Passes cannot be compiled on this machine."""


def why_unreadable(error: Exception) -> str:
    """Return why numpy could not read an archive, without its advice to unpickle what is no plain array."""
    return "it is no archive of plain arrays" if "pickle" in str(error) else str(error)
