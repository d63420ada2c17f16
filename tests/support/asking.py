"""Inferences as tests write them: with values, which go as JSON and come back as such."""

import json
from typing import Any

from prsmd.gateway.exchange import Inference
from prsmd.gateway.passage import InferenceResult


def asking(inputs: Any = "x", parameters: Any = None, **more: Any) -> Inference:
    """Return an inference of these values."""
    more.setdefault("request_id", "r")
    if parameters is not None:
        more["parameters"] = json.dumps(parameters).encode()
    return Inference(inputs=json.dumps(inputs).encode(), **more)


def outputs_of(result: InferenceResult) -> Any:
    """Return the outputs as a value."""
    return json.loads(bytes(result.outputs))
