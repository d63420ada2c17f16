"""Settings: which source wins, and errors that name where, what and what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prsmd.config import ConfigurationError, credential, load

ROOT = Path(__file__).parents[1]


@pytest.fixture
def file(tmp_path):
    """A settings file and its `conf.d`, written by section."""
    (tmp_path / "conf.d").mkdir()
    path = tmp_path / "prsmd.toml"
    path.write_text("")
    return path


def problems(file, environment=None, overrides=()):
    with pytest.raises(ConfigurationError) as refusal:
        load(file, environment or {}, overrides)
    return refusal.value.problems


def test_every_later_source_wins_over_the_earlier_ones(file):
    file.write_text("[tcp]\nport = 1\n")
    found = [load(file, {}).tcp.port]
    (file.parent / "conf.d" / "10-a.toml").write_text("[tcp]\nport = 2\n")
    found.append(load(file, {}).tcp.port)
    (file.parent / "conf.d" / "20-b.toml").write_text("[tcp]\nport = 3\n")
    found.append(load(file, {}).tcp.port)
    environment = {"PRSMD_TCP__PORT": "4"}
    found.append(load(file, environment).tcp.port)
    found.append(load(file, environment, ["tcp.port=5"]).tcp.port)
    found.append(load(file, environment, ["tcp.port=5", "tcp.port=6"]).tcp.port)

    assert found == [1, 2, 3, 4, 5, 6]


def test_a_later_file_replaces_only_the_keys_it_names(file):
    file.write_text('[tcp]\nport = 1\nhost = "127.0.0.2"\n')
    (file.parent / "conf.d" / "a.toml").write_text("[tcp]\nport = 2\n")
    (file.parent / "conf.d" / "ignored.txt").write_text("not TOML")

    settings = load(file, {})

    assert (settings.tcp.port, settings.tcp.host) == (2, "127.0.0.2")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("daemon.state_dir=/srv/prsmd", Path("/srv/prsmd")),
        ('daemon.state_dir="/srv/with space"', Path("/srv/with space")),
        ("engine.tick_seconds=0.5", 0.5),
        ("tcp.enabled=false", False),
        ('tcp.allowed_hosts=["a", "b"]', ("a", "b")),
        ("limits.body=32Mi", "32Mi"),
        ("unix.mode=0600", "0600"),
    ],
)
def test_flags_and_environment_take_toml_or_plain_text(text, value):
    name, _, given = text.partition("=")
    section, _, key = name.partition(".")
    variable = f"PRSMD_{section}__{key}".upper()
    for settings in (load(None, {}, [text]), load(None, {variable: given})):
        assert getattr(getattr(settings, section), key) == value


def test_variables_of_other_programs_are_left_alone():
    load(None, {"PRSMD_URL": "unix:///x", "PATH": "/bin", "OTHER_TCP__PORT": "x"})


def test_an_unknown_key_is_refused_with_file_line_and_the_nearest(file):
    file.write_text("# a comment\n[tcp]\nhost = '127.0.0.1'\nprot = 1\n")

    assert problems(file) == (f"{file}:4: tcp.prot: unknown key; did you mean port?",)


def test_an_unknown_section_is_refused_with_file_line_and_the_nearest(file):
    file.write_text("[tcp]\n\n[deamon]\nlog_level = 'info'\n")

    assert problems(file) == (f"{file}:3: deamon: unknown key; did you mean daemon?",)


def test_an_unknown_key_in_an_array_of_tables_is_compared_with_its_own_keys(file):
    file.write_text("[[access.unix_roles]]\nuidd = 5\nrole = 'viewer'\n")

    [unknown, *_] = problems(file)

    assert unknown.startswith(f"{file}:1: access.unix_roles.0.")
    assert any("did you mean uid?" in problem for problem in problems(file))


def test_an_unknown_key_of_a_drop_in_names_the_drop_in(file):
    drop_in = file.parent / "conf.d" / "a.toml"
    drop_in.write_text("tcp.prot = 1\n")

    assert problems(file) == (f"{drop_in}:1: tcp.prot: unknown key; did you mean port?",)


def test_unknown_keys_of_environment_and_flags_name_their_source(file):
    found = problems(file, {"PRSMD_TCP__PROT": "1", "PRSMD_TPC__PORT": "1"}, ["node.nam=x"])

    assert found == (
        "environment PRSMD_TCP__PROT: tcp.prot: unknown key; did you mean port?",
        "--set node.nam: node.nam: unknown key; did you mean name?",
        "environment PRSMD_TPC__PORT: tpc: unknown key; did you mean tcp?",
    )


@pytest.mark.parametrize(
    ("section", "line", "names"),
    [
        ("tcp", "port = 'many'", "tcp.port"),
        ("tcp", "port = 70000", "tcp.port"),
        ("tcp", "enabled = 'perhaps'", "tcp.enabled"),
        ("tcp", "public_url = 'ftp://x'", "tcp.public_url"),
        ("unix", "mode = '0999'", "unix.mode"),
        ("daemon", "log_level = 'loud'", "daemon.log_level"),
        ("engine", "tick_seconds = 0", "engine.tick_seconds"),
        ("engine", "tick_seconds = nan", "engine.tick_seconds"),
        ("limits", "body = '16 MB'", "limits.body"),
        ("node", "cpu_reserved = '2 cores'", "node.cpu_reserved"),
        ("access", "organization = 'A B'", "access.organization"),
        ("access", "unix_roles = [{role = 'viewer'}]", "access.unix_roles.0"),
        ("access", "unix_roles = [{uid = 1, gid = 1, role = 'viewer'}]", "access.unix_roles.0"),
        ("access", "unix_roles = [{uid = 1, role = 'root'}]", "access.unix_roles.0.role"),
        ("runtime", "docker_url = '/var/run/docker.sock'", "runtime.docker_url"),
    ],
)
def test_a_wrong_value_is_refused_with_file_line_and_key(file, section, line, names):
    file.write_text(f"\n[{section}]\n{line}\n")

    [problem] = problems(file)

    assert problem.startswith(f"{file}:3: {names}: ")


def test_every_problem_is_named_at_once(file):
    file.write_text("[tcp]\nport = 'x'\n[unix]\nmod = 1\n[node]\nmemory_reserved = 'y'\n")

    assert {problem.split(": ")[1] for problem in problems(file)} == {
        "tcp.port",
        "unix.mod",
        "node.memory_reserved",
    }


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_the_network_without_tls_is_refused_unless_it_is_trusted_in_so_many_words(file, host):
    file.write_text(f"[tcp]\nhost = '{host}'\n")
    [problem] = problems(file)
    assert problem.startswith(f"{file}:1: tcp: host {host} is not loopback and there is no TLS")

    for allowed in ("allow_plaintext = true", "cert = '/c'\nkey = '/k'", "enabled = false"):
        file.write_text(f"[tcp]\nhost = '{host}'\n{allowed}\n")
        assert load(file, {}).tcp.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_loopback_needs_no_tls(host):
    assert load(None, {}, [f'tcp.host="{host}"']).tcp.host == host


def test_a_certificate_without_its_key_is_refused(file):
    file.write_text("[tcp]\ncert = '/c'\n")
    assert "belong together" in problems(file)[0]


def test_a_named_file_must_be_there_and_the_default_one_need_not(tmp_path):
    assert problems(tmp_path / "absent.toml") == (f"{tmp_path}/absent.toml: no such file",)


@pytest.mark.parametrize(
    "content", [b"[tcp\n", b"port = \n", b"\xff\xfe", b"[tcp]\nport = 1\nport = 2\n"]
)
def test_a_file_that_is_no_toml_is_refused_by_name(file, content):
    file.write_bytes(content)
    [problem] = problems(file)
    assert problem.startswith(f"{file}: ")


def test_a_section_that_is_no_table_is_refused_and_can_be_replaced(file):
    file.write_text("tcp = 5\n")
    assert problems(file)[0].startswith(f"{file}:1: tcp: ")
    assert load(file, {}, ["tcp.port=5"]).tcp.port == 5


@pytest.mark.parametrize("flag", ["port=5", "=", "tcp=5"])
def test_a_flag_without_section_and_key_is_refused(flag):
    assert "write section.key=value" in problems(None, overrides=[flag])[0]


def test_no_setting_holds_a_secret_only_where_one_is():
    names = {
        f"{section}.{key}": value
        for section, values in load(None, {}).model_dump().items()
        for key, value in values.items()
        if any(word in key for word in ("pepper", "secret", "key", "password", "token"))
    }
    assert names == {
        "tcp.key": None,
        "access.pepper_file": None,
        "access.audit_key_file": None,
        "access.audit_former_keys": (),  # fingerprints
        "access.audit_former_key_file": None,
        "access.envelope_key_file": None,
        "access.previous_envelope_key_file": None,
        "runtime.secrets_dir": Path("/run/prsmd/secrets"),
        "images.trusted_keys": (),
        "quota.keys": 200,  # how many there may be
        "quota.secrets": 200,
    }
    assert load(None, {}, ["access.pepper_file=/p"]).access.pepper_file == Path("/p")


def test_a_credential_is_a_file_that_systemd_passed(tmp_path, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert credential("prsmd-pepper") is None
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert credential("prsmd-pepper") is None
    (tmp_path / "prsmd-pepper").write_bytes(b"x" * 32)
    assert credential("prsmd-pepper") == tmp_path / "prsmd-pepper"


def check(*arguments, **environment):
    """Run `prsmd --check` as an administrator does."""
    return subprocess.run(
        [sys.executable, "-m", "prsmd", "--check", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_check_says_that_settings_are_valid_and_touches_nothing(file, tmp_path):
    file.write_text(f"[daemon]\nstate_dir = '{tmp_path}/state'\n[unix]\npath = '{tmp_path}/s'\n")

    done = check("--config", str(file))

    assert (done.returncode, done.stdout, done.stderr) == (0, "configuration is valid\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf.d", "prsmd.toml"]


@pytest.mark.slow
def test_check_prints_each_problem_with_its_place_and_exits_78(file):
    file.write_text("[tcp]\nprot = 1\n")

    done = check("--config", str(file), "--set", "node.nam=x", PRSMD_LIMITS__BODY="lots")

    assert done.returncode == 78
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == f"prsmd: {file}:2: tcp.prot: unknown key; did you mean port?"
    assert len(lines) == 3
    assert any(line.startswith("prsmd: environment PRSMD_LIMITS__BODY: ") for line in lines)


@pytest.mark.slow
def test_the_daemon_itself_exits_78_for_the_same_settings(file, tmp_path):
    file.write_text(f"[daemon]\nstate_dir = '{tmp_path}/state'\n[unix]\npath = '{tmp_path}'\n")

    done = subprocess.run(
        [sys.executable, "-m", "prsmd", "--config", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 78
    assert done.stderr == f"prsmd: unix.path: {tmp_path}: is there and is not a socket\n"
    assert not (tmp_path / "state").exists()
