from pathlib import Path

import pytest
import yaml
from support.settings import MINIMAL


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A config with nothing but what has no default."""
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path
