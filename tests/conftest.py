"""What every suite shares: the private Docker engine and whole daemons."""

pytest_plugins = ["tests.support.engine_fixtures", "tests.support.daemon_fixtures"]
