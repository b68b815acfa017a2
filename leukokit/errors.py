"""The one family of errors a user may meet: each message says what, where and what to do."""

from __future__ import annotations

from typing import Final

LONGEST_CAUSE: Final = 1000
"""Most characters of a cause in a message."""


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


class FileNameError(OutputError):
    """One file cannot take its name: the file system refuses it, or something else stands there."""


def cause_of(error: BaseException) -> str:
    """Return the kind and message of an error on one printable line, for the messages of these errors."""
    try:
        text = str(error)
    except BaseException:  # the error is a plugin's, and so is its __str__
        text = "its message cannot be shown"
    line = " ".join(f"{type(error).__name__}: {text}".split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return line if len(line) <= LONGEST_CAUSE else f"{line[:LONGEST_CAUSE]} ..."
