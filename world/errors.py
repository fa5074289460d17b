"""The error tree of the world package. Owns the exceptions users may catch; knows nothing of why they are raised.

LightconeError
├── CheckpointError     a checkpoint folder is missing, incomplete or of another version
├── ShapeError          frames, latents or actions do not have the shape the world needs
├── ActionError         an action names a button the world does not have
├── StateError          bytes that are no saved session, or one of another format
├── PatternError        an attention pattern that would break causality was asked for
└── CompilationError    passes cannot be compiled on this machine
"""


class LightconeError(Exception):
    """Base of every error this project raises for its users."""


class CheckpointError(LightconeError):
    """A checkpoint folder is missing, incomplete or of another version."""


class ShapeError(LightconeError, ValueError):
    """Frames, latents or actions do not have the shape the world needs."""


class ActionError(LightconeError, ValueError):
    """An action names a button or axis the world does not have."""


class StateError(LightconeError, ValueError):
    """Bytes that are no saved session, or one of another format."""


class PatternError(LightconeError, ValueError):
    """An attention pattern that cannot be built, or that would break causality."""


class CompilationError(LightconeError):
    """Passes cannot be compiled on this machine."""
