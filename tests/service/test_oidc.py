"""Tokens of a local issuer: good ones, and every way in which one can be wrong."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from prsmd.domain.access import Binding, Member, Organization, SubjectKind
from prsmd.domain.errors import InvalidApiKeyError, InvalidTokenError
from prsmd.service.access import Access, KeyRing, Peers
from prsmd.service.directory import Directory
from prsmd.service.oidc import ClaimRule, KeySet, OidcSettings, OidcTokens

ISSUER, AUDIENCE = "https://id.example.com", "prsmd"
RULES = (
    ClaimRule(claim="groups", value="ml", organization="lab", role="deployer"),
    ClaimRule(claim="groups", value="audit", organization="lab", role="auditor"),
    ClaimRule(claim="groups", value="guests", organization="other", role="viewer"),
    ClaimRule(claim="tier", value="gold", organization="lab", role="owner"),
)
SECRETS = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
STRANGER = ec.generate_private_key(ec.SECP256R1())


def public(algorithm, secret=None, **changes):
    kind = jwt.get_algorithm_by_name(algorithm)
    found = kind.to_jwk((secret or SECRETS[algorithm]).public_key(), as_dict=True)
    return {**found, "kid": algorithm, "use": "sig", "alg": algorithm, **changes}


KEYS = {"keys": [public(algorithm) for algorithm in SECRETS]}


def token(algorithm="ES256", secret=None, head=None, **claims):
    now = time.time()
    body = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 600, "groups": ["ml"]}
    body |= claims
    body = {name: value for name, value in body.items() if value is not None}
    given = {"kid": algorithm, **(head or {})}
    return jwt.encode(body, secret or SECRETS[algorithm], algorithm, headers=given)


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(KEYS))
    return path


@pytest.fixture
def directory():
    return Directory()


@pytest.fixture
def tokens(keys_file, directory):
    return OidcTokens(settings(jwks_file=keys_file), directory)


def settings(**changes):
    values = {"issuer": ISSUER, "audience": AUDIENCE, "rules": RULES}
    return OidcSettings(**{**values, **changes})


async def refused(tokens, text):
    with pytest.raises(InvalidApiKeyError) as refusal:
        await tokens.identify(text)
    assert refusal.value.message == "The token is not valid here; ask for a new one."
    assert refusal.value.details == {}
    return refusal.value


@pytest.mark.parametrize("algorithm", SECRETS)
async def test_a_genuine_token_stands_for_its_subject_with_the_roles_of_its_claims(
    tokens, algorithm
):
    found = await tokens.identify(token(algorithm, exp=time.time() + 60))

    assert (found.principal.id, found.principal.organization) == ("oidc:ann", "lab")
    assert found.principal.role == "deployer"
    assert found.until == pytest.approx(time.time() + 90, abs=5)
    assert found.again().principal == found.principal


NOW = time.time()


@pytest.mark.parametrize(
    "wrong",
    [
        {"exp": NOW - 31},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": NOW + 86_400},
        {"iss": "https://evil.example.com"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 129},
        {"sub": "line\nbreak"},
        {"groups": ["nobody"]},
        {"groups": None},
        {"groups": {"ml": 1}},
        {"secret": STRANGER},
        {"head": {"kid": "unknown"}},
        {"head": {"kid": "RS256"}},
        {"head": {"kid": None}},
    ],
    ids=lambda wrong: " ".join(f"{name} {type(value).__name__}" for name, value in wrong.items()),
)
async def test_a_token_that_is_wrong_in_any_way_is_refused_in_the_same_words(tokens, wrong):
    await tokens.identify(token())
    given = {**wrong}
    if given.get("head") == {"kid": None}:
        del given["head"]
        text = jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": NOW + 86_400,
                           "groups": ["ml"]}, SECRETS["ES256"], "ES256")  # fmt: skip
    elif given.get("exp") == "soon":
        parts = token().split(".")
        parts[1] = encoded({"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": "soon"})
        text = ".".join(parts)
    else:
        text = token(**given)
    await refused(tokens, text)


def encoded(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


DEEP = base64.urlsafe_b64encode(b'{"alg":' + b"[" * 30_000).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "text", ["", "a.b.c", "..", "x" * 20000 + ".b.c", "é.b.c", f"{DEEP}.{DEEP}.c"]
)
async def test_what_is_no_token_is_refused(tokens, text):
    await refused(tokens, text)


async def test_a_token_without_a_signature_is_refused(tokens):
    body = token().split(".")[1]
    for head in ({"alg": "none", "kid": "ES256"}, {"alg": "none"}):
        await refused(tokens, f"{encoded(head)}.{body}.")


async def test_a_public_key_is_no_shared_secret(tokens):
    pem = (
        SECRETS["RS256"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    head, body = encoded({"alg": "HS256", "kid": "RS256"}), token("RS256").split(".")[1]
    mark = hmac.digest(pem, f"{head}.{body}".encode(), hashlib.sha256)
    text = f"{head}.{body}.{base64.urlsafe_b64encode(mark).rstrip(b'=').decode()}"
    await refused(tokens, text)


async def test_a_token_that_was_changed_after_it_was_seen_is_refused(tokens):
    text = token()
    await tokens.identify(text)
    head, body, mark = text.split(".")
    await refused(tokens, f"{head}.{body}.{mark[:-2]}{'AA' if mark[-2:] != 'AA' else 'BB'}")


async def test_a_token_that_was_seen_ends_when_it_ends(keys_file, directory):
    now = time.time()
    clock = [now]
    tokens = OidcTokens(settings(jwks_file=keys_file), directory, clock=lambda: clock[0])
    text = token(exp=now + 60)
    found = await tokens.identify(text)

    clock[0] = now + 91

    await refused(tokens, text)
    with pytest.raises(InvalidApiKeyError):
        found.again()


async def test_roles_of_one_organization_add_up_and_the_first_rule_decides_which(tokens):
    both = await tokens.identify(token(groups=["guests", "audit", "ml"]))
    single = await tokens.identify(token(groups=[], tier="gold"))

    assert (both.principal.organization, both.principal.role) == ("lab", "auditor+deployer")
    assert single.principal.role == "owner"


async def test_members_count_by_their_subject(tokens, directory):
    bound = Member(
        id="m", organization="lab", kind=SubjectKind.OIDC, subject="bob", name="Bob",
        bindings=(Binding("viewer"),), created_at=0.0, created_by="", accepted_at=0.0,
    )  # fmt: skip
    await refused(tokens, token(sub="bob", groups=[]))

    directory.put_member(bound)
    assert (await tokens.identify(token(sub="bob", groups=[]))).principal.role == "viewer"
    assert (await tokens.identify(token(sub="bob"))).principal.role == "deployer+viewer"
    guest = await tokens.identify(token(sub="bob", groups=["guests"]))
    assert (guest.principal.organization, guest.principal.role) == ("other", "viewer")


async def test_nobody_acts_for_a_disabled_organization(tokens, directory):
    found = await tokens.identify(token())
    directory.put_organization(
        Organization(id="lab", display_name="", created_at=0.0, created_by="", disabled_at=1.0)
    )
    with pytest.raises(InvalidApiKeyError, match="disabled"):
        found.again()
    with pytest.raises(InvalidApiKeyError, match="disabled"):
        await tokens.identify(token())


class Issuer:
    """A local issuer that serves its keys and counts how often."""

    def __init__(self):
        self.document, self.status, self.asked = json.dumps(KEYS), 200, 0
        self.hold = asyncio.Event()
        self.hold.set()

    async def answer(self, _request):
        self.asked += 1
        await self.hold.wait()
        return web.Response(text=self.document, status=self.status)

    async def start(self):
        app = web.Application()
        app.router.add_get("/jwks", self.answer)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        host, port = self.runner.addresses[0]
        return f"http://{host}:{port}/jwks"


@pytest.fixture
async def issuer():
    made = Issuer()
    made.url = await made.start()
    yield made
    made.hold.set()
    await made.runner.cleanup()


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def fetching(issuer, directory, **changes):
    clock = Clock()
    wanted = settings(jwks_url=issuer.url, **changes)
    return OidcTokens(wanted, directory, KeySet(wanted, clock)), clock


async def test_keys_are_fetched_once_for_many_tokens(issuer, directory):
    tokens, _ = fetching(issuer, directory)
    await asyncio.gather(*(tokens.identify(token(sub=f"s{n}")) for n in range(20)))
    assert issuer.asked == 1


async def test_an_unknown_key_is_looked_for_but_not_more_often_than_allowed(issuer, directory):
    tokens, clock = fetching(issuer, directory)
    await tokens.identify(token())
    renewed = ec.generate_private_key(ec.SECP256R1())
    coming = token(secret=renewed, head={"kid": "new"})

    await refused(tokens, coming)
    assert issuer.asked == 1
    issuer.document = json.dumps({"keys": [public("ES256", renewed, kid="new")]})
    clock.now += 31
    assert (await tokens.identify(coming)).principal.id == "oidc:ann"
    assert issuer.asked == 2
    await refused(tokens, token("RS256", sub="old key"))


async def test_reading_the_keys_again_tells_whether_one_is_no_more(tokens, keys_file):
    assert not await tokens.read_keys_again()  # none was asked for yet
    await tokens.identify(token())
    assert not await tokens.read_keys_again()
    added = public("ES256", STRANGER, kid="new")
    keys_file.write_text(json.dumps({"keys": [*KEYS["keys"], added]}))
    assert not await tokens.read_keys_again()
    await tokens.identify(token(secret=STRANGER, head={"kid": "new"}))
    other = public("ES256", STRANGER)
    for listed in ([*KEYS["keys"][1:], added], [*KEYS["keys"][:1], other]):
        keys_file.write_text(json.dumps({"keys": listed}))
        assert await tokens.read_keys_again()
    await refused(tokens, token())
    keys_file.unlink()
    assert not await tokens.read_keys_again()


async def test_keys_that_the_issuer_withdrew_are_good_no_longer_than_kept(issuer, directory):
    tokens, clock = fetching(issuer, directory)
    seen = token()
    await tokens.identify(seen)
    issuer.document = json.dumps({"keys": [public("RS256")]})

    clock.now += 3601

    await refused(tokens, token(sub="unseen"))
    await refused(tokens, seen)


async def test_keys_that_come_in_many_parts_are_read_whole_and_endless_ones_not(issuer, directory):
    tokens, clock = fetching(issuer, directory)
    padding = {"kid": "padding", "text": "x" * 600_000}
    issuer.document = json.dumps({"keys": [padding, *KEYS["keys"]]})
    assert (await tokens.identify(token())).principal.id == "oidc:ann"

    issuer.document = json.dumps({"keys": [padding, padding]})
    clock.now += 3601
    assert (await tokens.identify(token(sub="unseen"))).principal.id == "oidc:unseen"


@pytest.mark.parametrize("trouble", ["down", "error", "rubbish", "hangs"])
async def test_while_the_issuer_is_in_trouble_known_keys_stay_good(issuer, directory, trouble):
    tokens, clock = fetching(issuer, directory, deadline_seconds=0.2)
    await tokens.identify(token())
    if trouble == "down":
        await issuer.runner.cleanup()
    issuer.status = 500 if trouble == "error" else 200
    issuer.document = "no keys" if trouble == "rubbish" else issuer.document
    if trouble == "hangs":
        issuer.hold.clear()
    clock.now += 3601

    assert (await tokens.identify(token(sub="unseen"))).principal.id == "oidc:unseen"


async def test_without_the_issuer_and_without_keys_nobody_comes_in(issuer, directory):
    tokens, _ = fetching(issuer, directory)
    issuer.status = 500
    await refused(tokens, token())


async def test_why_a_token_was_refused_is_for_the_log_and_without_the_token(tokens, caplog):
    caplog.set_level(logging.DEBUG, "prsmd")
    text = token(aud="another")
    error = await refused(tokens, text)
    assert isinstance(error, InvalidTokenError)
    assert "udience" in error.why
    assert text not in error.why
    assert "udience" not in error.message
    await tokens.identify(token())
    assert not caplog.records, "each attempt would be a line"


async def test_deep_keys_are_keys_that_cannot_be_read(tokens, keys_file, caplog):
    keys_file.write_text('{"keys":' + "[" * 100_000)
    await refused(tokens, token())
    assert "the issuer's keys cannot be read" in caplog.text


async def test_without_an_issuer_a_token_is_no_credential_at_all(directory):
    access = Access(KeyRing(b"p" * 32, directory), Peers("company", ()))
    with pytest.raises(InvalidApiKeyError, match="API key is not valid"):
        await access.by_credential(token(), None)
