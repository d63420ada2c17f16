"""Images: list, load an archive, remove what nobody needs."""

import asyncio
import re
import shutil
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from prsmd.api.image_schemas import PruneBody
from prsmd.api.operations import Operation, Services
from prsmd.api.requests import body_as, refuse_unknown
from prsmd.api.respond import json_list_response, rfc3339
from prsmd.api.uploads import received
from prsmd.core.collect import KeptRevision, Verdict
from prsmd.domain.access import Permission
from prsmd.domain.errors import InvalidInputError
from prsmd.engine.stock import Loaded
from prsmd.service.caller import Caller
from prsmd.service.idempotency import Answer
from prsmd.service.images import ImageReport, LoadReport, PruneReport, Upload

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ARCHIVES = {"application/x-tar", "application/octet-stream"}
LOAD_QUERY = {
    "digest": "sha256:… of the archive, checked before anything is loaded",
    "name": "a name for the only image in it, such as company/model:v1",
}


async def page(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """List the images that are here: where each came from, who uses it, whether it would go."""
    refuse_unknown(request)
    reports = await services.images.list(caller)
    free_bytes = await services.images.free_bytes()
    return await asyncio.to_thread(_page_response, reports, free_bytes)


async def load(services: Services, request: web.Request, caller: Caller) -> LoadReport:
    """Load the images of an archive: what `docker save` writes, or an OCI image layout.

    The body is the tar file itself. Everything in it is verified before the engine sees any of it.
    """
    refuse_unknown(request, *LOAD_QUERY)
    folder = services.uploads
    await services.images.admit(caller, request.content_length, shutil.disk_usage(folder).free)
    if request.content_type not in _ARCHIVES:
        raise InvalidInputError.field(
            "Content-Type", "must be application/x-tar", request.content_type[:100]
        )
    expected = request.query.get("digest")
    if expected is not None and _DIGEST.fullmatch(expected) is None:
        raise InvalidInputError.field("digest", "must be sha256: and 64 digits", expected[:100])
    async with received(request, folder, services.images.most_archive_bytes) as body:
        upload = Upload(
            path=body.path,
            size_bytes=body.size_bytes,
            sha256=body.sha256,
            expected=expected,
            name=request.query.get("name"),
        )
        return await services.images.load(caller, upload)


def loaded(_services: Services, report: LoadReport) -> Answer:
    """Return the answer to a load."""
    body = {
        "archive_digest": report.sha256,
        "archive_bytes": report.size_bytes,
        "images": [_loaded_body(one) for one in report.loaded],
    }
    return Answer(body=body, status=201)


async def prune(services: Services, request: web.Request, caller: Caller) -> PruneReport:
    """Remove the images that prsmd brought, that no container and no kept revision needs."""
    refuse_unknown(request)
    body = await body_as(request, PruneBody)
    return await services.images.prune(caller, body.keep_revisions, dry_run=body.dry_run)


def pruned(_services: Services, report: PruneReport) -> Answer:
    """Return the answer to a prune."""
    gone = [_verdict_body(verdict) for verdict in report.verdicts if verdict.goes]
    return Answer(
        body={
            "dry_run": report.dry_run,
            "keep_revisions": report.keep_revisions,
            "removed": gone,
            "kept": [
                {**_verdict_body(verdict), "reason": verdict.kept_for}
                for verdict in report.verdicts
                if not verdict.goes
            ],
            "freed_bytes": report.freed_bytes,
        }
    )


def _page_response(reports: Sequence[ImageReport], free_bytes: int) -> web.Response:
    body = {"images": reports, "total": len(reports), "free_bytes": free_bytes}
    return json_list_response(body, "images", _image_body)


def _image_body(report: ImageReport) -> dict[str, Any]:
    brought = report.brought
    return {
        "id": report.id,
        "references": list(report.references),
        "digests": list(report.digests),
        "size_bytes": report.size_bytes,
        "in_use": report.in_use,
        "origin": None if brought is None else brought.origin.value,
        "private": brought is not None and brought.private,
        "brought_at": rfc3339(None if brought is None else brought.at),
        "brought_by": None if brought is None else brought.by,
        "organization": None if brought is None else brought.organization or None,
        "used_by": [_use_body(use) for use in report.used_by],
        "would_be_pruned": report.kept_for is None,
        "kept_for": report.kept_for,
    }


def _use_body(use: KeptRevision) -> dict[str, Any]:
    return {
        "deployment_id": use.deployment_id,
        "model_id": use.model_id,
        "organization": use.organization,
        "revision": use.number,
    }


def _loaded_body(one: Loaded) -> dict[str, Any]:
    image, replaced = one.image, one.replaced
    return {
        "reference": None if image.reference == image.id else image.reference,
        "digest": image.digest,
        "id": image.id,
        "size_bytes": image.size_bytes,
        "replaced_digest": None if replaced is None else replaced.digest,
        "still_run_by": [_use_body(use) for use in one.still_run_by],
    }


def _verdict_body(verdict: Verdict) -> dict[str, Any]:
    content = verdict.content
    return {
        "id": content.id,
        "names": sorted(content.names - {content.id}),
        "size_bytes": content.size_bytes,
    }


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/images",
        handler=page,
        summary="List images",
        permission=Permission.NODE_READ,
    ),
    Operation(
        method="POST",
        path="/v1/images",
        handler=load,
        summary="Load an archive of images",
        permission=Permission.NODE_MANAGE,
        query=LOAD_QUERY,
        answer=loaded,
        uploads=True,
    ),
    Operation(
        method="POST",
        path="/v1/images/prune",
        handler=prune,
        summary="Remove images that nobody needs",
        permission=Permission.NODE_MANAGE,
        body=PruneBody,
        answer=pruned,
    ),
)
