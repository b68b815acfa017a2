"""The one family of errors a user may meet: each message says what, where and what to do."""

from __future__ import annotations


class LeukokitError(Exception):
    """Base of every error that leukokit raises on purpose; shown to users as one line."""


class ImageError(LeukokitError):
    """An image file cannot be read as a smear."""


class ConfigError(LeukokitError):
    """A setting, a configuration file or a parameter is wrong."""


class PluginError(LeukokitError):
    """A plugin is missing, broken, ambiguous or breaks its contract."""


class UnknownPluginError(PluginError, ConfigError):
    """No plugin of the name, and no file of the path, that was asked for."""


class DeviceMemoryError(PluginError):
    """A plugin found the GPU's memory too small for what it was given."""


class WeightsError(LeukokitError):
    """A weight file is missing, damaged, of another architecture, or not trusted."""


class DataError(LeukokitError):
    """A data set cannot be fetched, prepared or read."""


class OutputError(LeukokitError):
    """A result cannot be written."""


def cause_of(error: BaseException) -> str:
    """What went wrong, of which kind, in one line: for the messages of these errors."""
    return " ".join(f"{type(error).__name__}: {error}".split())
