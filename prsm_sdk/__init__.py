"""Client of the prsmd API: `PRSMClient` for programs, `prsm_sdk.sync` for command lines.

Importing the package loads neither aiohttp nor the client, so that a command line starts at once;
the names below are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import PRSMClient
    from .errors import PRSMError

__all__ = ["PRSMClient", "PRSMError"]
__version__ = "0.1.0"

_HOMES = {"PRSMClient": "prsm_sdk.client", "PRSMError": "prsm_sdk.errors"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module 'prsm_sdk' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_HOMES[name]), name)
