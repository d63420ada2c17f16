"""Cases whose requests are small and meet what a tenant stored before: as much as it may have."""

from benchmarks.hostile.payloads import as_json, request
from benchmarks.hostile.senders import Plan
from benchmarks.hostile.site import Site

_MODEL = "/v1/custom-models/hostile"
_MOST_BOUNDS = 100  # models or networks of a key, borrowers of a share


def large_keys(site: Site) -> Plan:
    """Lists of keys, each with as many models and networks as a key may have."""
    models = [f"{number:03d}{'m' * 80}" for number in range(_MOST_BOUNDS)]
    for number in range(60):
        body = {"name": f"large-{number}", "role": "viewer", "models": models}
        site.change("POST", "/v1/api-keys", {**body, "networks": _networks(10)})
    paths = ("/v1/api-keys?limit=1", "/v1/api-keys?limit=100")
    made = [request(f"GET {path}", site.keys["owner"]) for path in paths]
    return Plan(requests=made, connections=8, count=10)


def role_changes(site: Site) -> Plan:
    """Changes of a role that many have, by a key with as many networks as a key may have."""
    site.change("POST", "/v1/roles", {"name": "changing", "permissions": ["models.read"]})
    body = {"name": "many-networks", "role": "changing", "networks": _networks(127)}
    for _ in range(30):
        site.change("POST", "/v1/api-keys", body)
    outer = [*_networks(127)[:-1], "127.0.0.0/8"]
    key = site.change("POST", "/v1/api-keys", {**body, "role": "owner", "networks": outer})["key"]
    made = [
        request("PATCH /v1/roles/changing", key, as_json({"permissions": permissions}))
        for permissions in (["models.read", "models.infer"], ["models.read"])
    ]
    return Plan(requests=made, connections=8, count=10)


def large_shares(site: Site) -> Plan:
    """Changes and lists of shares, each with as many borrowers as a share may have."""
    path = f"{_MODEL}/share"
    body = {"permissions": ["read"], "usage_limits": {"requests_per_day": 5}}
    shares = []
    for number in range(60):
        borrowers = [f"borrower-{number}-{n}" for n in range(_MOST_BOUNDS)]
        shares.append(site.change("POST", path, {**body, "allowed_organizations": borrowers}))
    made = [
        request(
            f"PATCH {_MODEL}/shares/{share['share_id']}",
            site.keys["owner"],
            as_json({"usage_limits": {"requests_per_day": 6 + number}}),
        )
        for number, share in enumerate(shares)
    ]
    made += [request(f"GET {_MODEL}/shares?limit=1", site.keys["owner"])] * len(made)
    return Plan(requests=made, connections=16, count=20)


def _networks(first: int) -> list[str]:
    return [f"{first}.0.{number}.0/24" for number in range(_MOST_BOUNDS)]
