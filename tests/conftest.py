"""What every suite shares: the private Docker engine, registries and whole daemons."""

pytest_plugins = [
    "tests.support.engine_fixtures",
    "tests.support.podman",
    "tests.support.registry_fixtures",
    "tests.support.daemon_fixtures",
]
