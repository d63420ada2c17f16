"""A replica as the data path sees it: how it is spoken to, and what it is working on."""

from prsmd.core.routes import Route, RouteTarget


class Target:
    """A replica in the table, or one that left it and finishes its work (`leaving`).

    It is spoken to as its own revision says (`serving`), and takes as many requests at once
    (`slots`). `suspect`: the last exchange with it broke off or did not come about, or it is
    about to be stopped.
    """

    __slots__ = (
        "endpoint",
        "in_flight",
        "leaving",
        "on_trial",
        "replica_id",
        "revision",
        "serving",
        "slots",
        "suspect",
        "version",
    )

    def __init__(self, wanted: RouteTarget, route: Route) -> None:
        self.replica_id = wanted.replica_id
        self.in_flight = 0
        self.follow(wanted, route)

    def __str__(self) -> str:
        marks = "".join(
            f" {name}" for name in ("suspect", "leaving", "on_trial") if getattr(self, name)
        )
        return f"{self.replica_id} {self.in_flight}/{self.slots}{marks.replace('_', ' ')}"

    def follow(self, wanted: RouteTarget, route: Route) -> None:
        """Take over what a newly published table says: it was just found ready."""
        self.endpoint = wanted.endpoint
        self.serving = wanted.serving or route.serving
        self.slots = self.serving.max_concurrency
        self.version = wanted.version or route.version
        self.revision = wanted.revision or route.revision
        self.on_trial = wanted.on_trial and route.trial is not None
        self.suspect = self.leaving = False
