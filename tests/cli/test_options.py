"""Options that commands share, and the configuration they add up to."""

from __future__ import annotations

import pytest

from leukokit.cli.options import pipeline_config
from leukokit.errors import ConfigError


def test_settings_of_a_writer_go_below_writers() -> None:
    assert pipeline_config(settings=["writers.png.longest_side=800"]).writers == {
        "png": {"longest_side": 800}
    }


def test_settings_of_a_writer_alone_say_where_they_go() -> None:
    with pytest.raises(ConfigError, match=r"write writers\.png\.longest_side=800$"):
        pipeline_config(settings=["png.longest_side=800"])
