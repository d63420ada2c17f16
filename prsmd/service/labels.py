"""Version labels: one label names one content, and a change without a label gets the next one.

What counts is what a container is made from: in-place changes keep their label.
"""

from collections.abc import Collection, Sequence

from prsmd.domain.deployment import Revision
from prsmd.domain.errors import ConflictError
from prsmd.domain.spec import container_part


def refuse_reused(revision: Revision, history: Sequence[Revision]) -> None:
    """Raise ConflictError when the revision's label names another container already."""
    version = revision.spec.metadata.version
    for earlier in reversed(history):
        same_label = earlier.spec.metadata.version == version
        if same_label and container_part(earlier.spec) != container_part(revision.spec):
            raise ConflictError(
                f"Version {version} labels revision {earlier.number}, which runs another"
                " container. Give another model_metadata.version, or none for the next free one.",
                version=version,
                revision=earlier.number,
            )


def next_free(version: str, taken: Collection[str]) -> str:
    """Return the first patch version above `version` that labels nothing: 2.1.0 gives 2.1.1."""
    major, minor, rest = version.split(".", 2)
    patch = int(rest.split("-")[0].split("+")[0].split(".")[0])
    while (found := f"{major}.{minor}.{(patch := patch + 1)}") in taken:
        continue
    return found
