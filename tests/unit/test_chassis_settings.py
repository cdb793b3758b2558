"""Settings from the environment: read, defaulted, refused whole without showing a secret."""

import pytest

from chassis.settings import EnvironmentSettings, SettingsError, read, variable


class _Settings(EnvironmentSettings):
    url: str = variable("X_URL", "the database, like postgresql://…", secret=True, pattern="^postgresql:")
    size: int = variable("X_SIZE", "connections, at least 2", default=10, ge=2)


def test_values_are_read_and_defaulted() -> None:
    settings = read(_Settings, {"X_URL": "postgresql://u:hunter2@h/d", "X_SIZE": "3", "OTHER": "y"})
    assert (settings.url, settings.size) == ("postgresql://u:hunter2@h/d", 3)
    assert read(_Settings, {"X_URL": "postgresql:", "X_SIZE": ""}).size == 10
    assert "hunter2" not in repr(settings)


def test_every_fault_names_its_variable_and_the_remedy() -> None:
    with pytest.raises(SettingsError) as refused:
        read(_Settings, {"X_SIZE": "1"})
    missing, small = refused.value.faults
    assert missing == "environment variable X_URL is not set: the database, like postgresql://…"
    assert small.startswith("environment variable X_SIZE: Input should be greater than or equal to 2")
    assert small.endswith("Set it to: connections, at least 2")


def test_a_refused_secret_is_not_shown() -> None:
    with pytest.raises(SettingsError) as refused:
        read(_Settings, {"X_URL": "mysql://u:hunter2@h/d"})
    assert "X_URL" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__suppress_context__
