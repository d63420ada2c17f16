"""The services of a whole appliance on a fake engine and a real store."""

from tests.engine.conftest import life, world

__all__ = ["life", "world"]
