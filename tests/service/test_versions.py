from __future__ import annotations

import numpy as np

from service.versions import find_version


def test_an_installed_package_tells_its_version() -> None:
    assert find_version("numpy") == np.__version__


def test_a_package_that_is_not_installed_is_unknown() -> None:
    assert find_version("no-such-package-anywhere") == "unknown"
