"""Secrets are fetched where the file says, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import SecretRef
from gateway.errors import Unavailable
from tests.unit.config.writing import AGENT, TOUCHPOINT, load


def password(directory: Path, reference: str) -> SecretRef:
    loaded = load(directory, f'{TOUCHPOINT}password = "{reference}"\n{AGENT}')
    found = loaded.touchpoints["support"].password
    assert found is not None
    return found


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_file_lies_beside_the_one_that_names_it(tmp_path: Path, ending: str) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "support").write_bytes(f" hunter 2 {ending}".encode())
    assert password(tmp_path, "file:secrets/support").resolve() == " hunter 2 "


def test_the_environment_is_asked_when_the_secret_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = password(tmp_path, "env:SUPPORT_PASSWORD")
    monkeypatch.setenv("SUPPORT_PASSWORD", "hunter2")
    assert secret.resolve() == "hunter2"


def test_a_credential_comes_from_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "support").write_text("hunter2\n")
    secret = password(tmp_path, "credential:support")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert secret.resolve() == "hunter2"


def test_a_command_runs_without_a_shell(tmp_path: Path) -> None:
    assert password(tmp_path, "command:echo 'hunter 2' $HOME").resolve() == "hunter 2 $HOME"


UNAVAILABLE = {
    "file:nowhere": "cannot be read from",
    "file:empty": "is empty",
    "file:large": "is larger than 64 KiB",
    "file:latin": "is not UTF-8 text",
    "env:NOT_SET_ANYWHERE": "is not set",
    "credential:support": "there is no CREDENTIALS_DIRECTORY",
    "command:/nowhere/at/all": "the command does not start",
    "command:sh -c 'echo hunter2; echo hunter2 >&2; exit 3'": "the command ended with status 3",
    "command:true": "is empty",
}


@pytest.mark.parametrize(("reference", "reason"), UNAVAILABLE.items(), ids=UNAVAILABLE.keys())
def test_a_secret_that_cannot_be_had_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, reason: str
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "large").write_bytes(b"hunter2" * 10_000)
    (tmp_path / "latin").write_bytes(b"hunter2\xe1")
    with pytest.raises(Unavailable) as caught:
        password(tmp_path, reference).resolve()
    message = str(caught.value)
    assert reason in message
    assert "\n" not in message
    assert message.replace(reference, "").count("hunter2") == 0


def test_a_command_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    from gateway.config import secrets

    monkeypatch.setattr(secrets, "_PATIENCE", timedelta(milliseconds=50))
    with pytest.raises(Unavailable, match="did not come within"):
        password(tmp_path, "command:sleep 60").resolve()


def test_it_prints_as_its_reference(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hunter2")
    secret = password(tmp_path, "file:a")
    secret.resolve()
    assert "hunter2" not in f"{secret} {secret!r}"
    assert str(secret) == "file:a"


@pytest.mark.parametrize("reference", ["credential:../x", "credential:a/b", "file:", "env:", "command:'", "File:x"])
def test_what_is_no_reference_is_refused(tmp_path: Path, reference: str) -> None:
    from gateway.errors import ConfigError

    with pytest.raises(ConfigError, match=r"password"):
        password(tmp_path, reference)
