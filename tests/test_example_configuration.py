"""configs/prsmd.toml lists every key there is, no other, with its true default."""

import tomllib
from pathlib import Path

from prsmd.config import load
from prsmd.settings import Settings

FILE = Path(__file__).parents[1] / "configs" / "prsmd.toml"

# Keys whose default is None, computed or empty: the file shows an example instead.
WITHOUT_FIXED_DEFAULT = {
    "tcp.cert",
    "tcp.key",
    "tcp.public_url",
    "tcp.trusted_proxies",
    "access.unix_roles",
    "access.pepper_file",
    "access.audit_key_file",
    "access.audit_former_key_file",
    "audit.checkpoint_copy",
    "access.envelope_key_file",
    "access.previous_envelope_key_file",
    "oidc.issuer",
    "oidc.jwks_url",
    "oidc.jwks_file",
    "oidc.rules",
    "runtime.default_class",
    "node.name",
}


def uncommented():
    """The file with its settings in force: `#key` and what belongs to it, prose stays a comment."""
    lines = FILE.read_text().splitlines()
    return tomllib.loads(
        "\n".join(line.removeprefix("#") if is_code(line) else line for line in lines)
    )


def is_code(line):
    return (line.startswith("#") and not line.startswith("# ")) or line.startswith("#  {")


def test_it_lists_exactly_the_keys_there_are():
    listed = {section: set(keys) for section, keys in uncommented().items()}
    known = {
        section: set(field.annotation.model_fields)
        for section, field in Settings.model_fields.items()
    }
    assert listed == known


def test_the_defaults_it_states_are_true():
    defaults = Settings().model_dump(mode="json")
    wrong = [
        f"{section}.{key}"
        for section, keys in uncommented().items()
        for key, value in keys.items()
        if f"{section}.{key}" not in WITHOUT_FIXED_DEFAULT and defaults[section][key] != value
    ]
    assert wrong == []


def test_its_examples_are_accepted():
    assert Settings.model_validate(uncommented()).access.unix_roles[1].role == "viewer"


def test_as_shipped_it_changes_nothing():
    assert load(FILE, {}) == Settings()
