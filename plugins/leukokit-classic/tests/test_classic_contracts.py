import pytest
from leukokit.testing import Check, checks

from leukokit_classic.blob import BlobDetector
from leukokit_classic.cmyk_moments import CmykMomentsDetector
from leukokit_classic.sift_cnn import SiftCnnClassifier
from leukokit_classic.svm_features import SvmFeaturesClassifier

PLUGINS = (BlobDetector, CmykMomentsDetector, SvmFeaturesClassifier, SiftCnnClassifier)


@pytest.mark.parametrize("check", [pytest.param(c, id=f"{p.name}-{c}") for p in PLUGINS for c in checks(p)])
def test_contract(check: Check) -> None:
    check.run()
