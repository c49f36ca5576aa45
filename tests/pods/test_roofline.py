import pytest

from mfm_jax.pods.chips import CHIPS, H100, V5E, V5P, chip_named, chip_of
from mfm_jax.pods.report import DoesNotFit, check_fits, overflow
from mfm_jax.pods.roofline import Work, roofline
from mfm_jax.pods.targets import parse


def test_the_slowest_part_decides():
    work = Work(model=V5E.flops, executed=2 * V5E.flops, memory=V5E.bandwidth, fabric=0.0, network=0.0)
    line = roofline(V5E, work)
    assert (line.step, line.limit, line.mfu) == (2.0, "compute", 0.5)
    assert (line.serial, line.mfu_serial) == (3.0, pytest.approx(1 / 3))
    slow = roofline(V5E, work._replace(network=4 * V5E.network))
    assert (slow.step, slow.limit, slow.mfu) == (4.0, "network", 0.25)


def test_targets_are_read():
    assert parse("v5e:16x16").size == 256
    two = parse("2xv5e:4x4")
    assert (two.chip, two.shape, two.slices, two.size) == (V5E, (4, 4), 2, 32)
    assert parse("v5p:8x8x16").size == 1024
    assert parse("h100:8").chip is H100


@pytest.mark.parametrize(
    ("name", "message"),
    [("v5e-8", "write CHIP:SHAPE"), ("v9z:2x2", "one of v5e, v5p"), ("h100:2x4", "GPUs are one number")],
)
def test_bad_targets_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        parse(name)


def test_chips_are_found_by_name_and_kind():
    assert chip_named("v5p") is V5P
    assert chip_of("TPU v5 lite") is V5E
    assert chip_of("TPU v5") is V5P
    assert chip_of("NVIDIA H100 80GB HBM3") is H100
    assert chip_of("cpu") is None
    # A byte of memory takes longer to reach than an operation to do, and the wires are slower again.
    assert all(c.flops > c.bandwidth > c.fabric > c.network for c in CHIPS)


def test_what_does_not_fit_is_refused_with_a_remedy():
    check_fits("prior", 15 * 2.0**30, parse("v5e:2x2"))
    with pytest.raises(
        DoesNotFit, match=r"prior: needs 17.0 GiB on each v5e, which has 16.0 GiB; raise --mesh"
    ):
        check_fits("prior", 17 * 2.0**30, parse("v5e:2x2"))


def test_the_compilers_message_is_understood():
    told = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 19.81G of 15.75G hbm."
    assert overflow(told) == pytest.approx(19.81 * 2**30)
    assert overflow("INVALID_ARGUMENT: something else") is None
