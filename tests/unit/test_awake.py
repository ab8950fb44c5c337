"""Keeping processors awake: what is written to the device, and when."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from minilambda.awake import ANY, GUEST, HOLD, METAL, Awake
from minilambda.cli.broker import broker_settings
from minilambda.cli.options import BadOption, Options
from minilambda.cli.worker import worker_settings
from minilambda.errors import MinilambdaError


@pytest.fixture
def device(tmp_path: Path) -> Path:
    (tmp_path / "latency").touch()
    return tmp_path / "latency"


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """What the system says of its idle processors, in a guest of KVM."""
    (tmp_path / "current_driver").write_text("haltpoll\n")
    return tmp_path / "current_driver"


def written(device: Path) -> list[int]:
    """The latencies that were asked for, microseconds."""
    return [number for (number,) in struct.iter_unpack("=i", device.read_bytes())]


def test_nothing_is_asked_for_before_a_job_has_come(device: Path, driver: Path) -> None:
    awake = Awake(0.5, device, driver)
    assert awake.look(7.0, 60.0) == 60.0
    assert written(device) == []


def test_processors_stay_awake_from_a_step_until_a_moment_after_the_last(device: Path, driver: Path) -> None:
    # given
    awake = Awake(0.5, device, driver)
    # when
    awake.step(10.0)
    awake.step(10.25)
    # then one request serves both, and the time counts from the second
    assert written(device) == [GUEST]
    assert (awake.look(10.5, 60.0), awake.look(10.5, 0.125)) == (0.25, 0.125)
    assert written(device) == [GUEST]
    # when
    assert awake.look(10.75, 60.0) == 60.0
    # then
    assert written(device) == [GUEST, ANY]
    assert awake.look(11.0, 60.0) == 60.0
    assert len(written(device)) == 2
    # when there is another job
    awake.step(20.0)
    # then
    assert written(device) == [GUEST, ANY, GUEST]


@pytest.mark.parametrize(("name", "latency"), [("haltpoll", GUEST), ("intel_idle", METAL), ("acpi_idle", METAL)])
def test_light_sleep_is_let_be_where_leaving_it_is_quick(device: Path, driver: Path, name: str, latency: int) -> None:
    driver.write_text(f"{name}\n")
    Awake(0.5, device, driver).step(1.0)
    assert written(device) == [latency]


def test_without_an_option_the_time_is_the_usual_one(device: Path, driver: Path) -> None:
    awake = Awake.wanted(None, device, driver)
    assert awake is not None
    awake.step(0.0)
    assert awake.look(0.0, 60.0) == HOLD


def test_with_0_the_device_is_not_even_opened(tmp_path: Path, driver: Path) -> None:
    assert Awake.wanted(0.0, tmp_path / "none", driver) is None


def test_a_system_that_does_not_let_it_is_named_to_those_who_asked(tmp_path: Path, driver: Path) -> None:
    assert Awake.wanted(None, tmp_path / "none", driver) is None
    with pytest.raises(MinilambdaError, match=r"--awake: .*/none can't be opened: No such file"):
        Awake.wanted(0.5, tmp_path / "none", driver)


@pytest.mark.parametrize("name", ["none\n", ""])
def test_a_kernel_that_would_not_heed_it_is_named_to_those_who_asked(device: Path, driver: Path, name: str) -> None:
    driver.write_text(name) if name else driver.unlink()
    assert Awake.wanted(None, device, driver) is None
    with pytest.raises(MinilambdaError, match="--awake: this kernel has no driver for idle processors"):
        Awake.wanted(0.5, device, driver)


def test_closing_gives_the_device_back_once(device: Path, driver: Path) -> None:
    awake = Awake(0.5, device, driver)
    awake.step(1.0)
    awake.close()
    awake.close()
    assert awake.look(9.0, 60.0) == 60.0


@pytest.mark.parametrize(("given", "hold"), [(None, None), ("0", 0.0), ("2ms", 0.002), ("1.5s", 1.5)])
def test_broker_and_worker_take_the_option_alike(given: str | None, hold: float | None) -> None:
    found = Options({"--awake": given}, {})
    assert (broker_settings(found).awake, worker_settings(found).awake) == (hold, hold)


@pytest.mark.parametrize("given", ["soon", "-1", ""])
def test_a_time_that_is_none_is_refused(given: str) -> None:
    found = Options({"--awake": given}, {})
    for settings in (broker_settings, worker_settings):
        with pytest.raises(BadOption, match=r"--awake: .* is not a duration"):
            settings(found)
