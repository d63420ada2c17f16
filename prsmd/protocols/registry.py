"""All serving protocols by the name that a spec gives them. A new one is one line here."""

from collections.abc import Mapping

from .base import ServingProtocol
from .native import Native

PROTOCOLS: Mapping[str, ServingProtocol] = {protocol.name: protocol for protocol in (Native(),)}
