"""One TOML file, read at the edge: frozen models, all mistakes at once, no secret in it. Lower rooms never import this one."""

from mirror.config.load import Overrides, load, read_secret
from mirror.config.mistakes import ConfigError, Mistake
from mirror.config.models import Config

__all__ = ["Config", "ConfigError", "Mistake", "Overrides", "load", "read_secret"]
