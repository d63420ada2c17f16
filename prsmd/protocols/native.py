"""prsmd's own container contract: POST {"inputs", "parameters"}, answered by {"outputs"}."""

from prsmd.domain.spec import Serving

from .base import (
    EVENT_STREAM,
    JSON,
    ContainerAnswer,
    ContainerRequest,
    ModelRequest,
    member,
    path_problem,
    refuse,
)
from .json_members import Steps


class Native:
    """`GET /health` answers 200 when ready; `POST /infer` infers, or streams when asked to."""

    name = "native"

    def health_path(self, serving: Serving) -> str:
        """Return the spec's health path, or `/health`."""
        return serving.health_path or "/health"

    def problem(self, serving: Serving) -> str | None:
        """Return what is wrong with the spec's paths, or None."""
        paths = {"health_path": serving.health_path, "predict_path": serving.predict_path}
        for field, path in paths.items():
            if path is not None and (why := path_problem(path)) is not None:
                return f"{field} {why}"
        return None

    def request(self, request: ModelRequest, serving: Serving) -> ContainerRequest:
        """Return the POST that asks for this inference."""
        accept = f"{EVENT_STREAM}, {JSON}" if request.stream else JSON
        return ContainerRequest(
            method="POST",
            path=serving.predict_path or "/infer",
            headers={"Content-Type": JSON, "Accept": accept},
            body=(b'{"inputs":', request.inputs, b',"parameters":', request.parameters, b"}"),
        )

    def outputs(self, answer: ContainerAnswer) -> Steps[memoryview]:
        """Return what stands under `outputs`. Raise ProviderError for any other answer."""
        found = yield from member(answer, "outputs")
        if found is None:
            refuse(answer, 'the model\'s answer is not a JSON object with "outputs"')
        return found
