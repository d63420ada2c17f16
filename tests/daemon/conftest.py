"""A daemon on the embedded runtime with one model, for tests of its life."""

from pathlib import Path

from tests.api.conftest import SETTINGS

PROCESS = {name: value for name, value in SETTINGS.items() if not name.startswith("limits.")}
BUNDLES = Path(__file__).parents[1] / "api" / "bundles"
