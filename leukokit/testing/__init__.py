"""The conformance kit for plugin authors: does a plugin keep its contract, on every input that occurs?

From a shell, ``leukokit plugins check NAME-or-PATH``. In a test of the plugin::

    import pytest
    from leukokit.testing import checks

    @pytest.mark.parametrize("check", checks(MyClassifier), ids=str)
    def test_contract(check):
        check.run()

All inputs are drawn by code. The kit downloads nothing and needs no GPU.
"""

from leukokit.testing.check import TIME_LIMIT, Check
from leukokit.testing.kit import CheckOutcome, Report, checks, run_checks

__all__ = ["TIME_LIMIT", "Check", "CheckOutcome", "Report", "checks", "run_checks"]
