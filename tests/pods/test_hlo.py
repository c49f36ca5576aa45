"""`fsdp_scan.hlo` is what XLA made, for eight CPU devices as data 2 x fsdp 4, of one step of gradient descent
on six layers `tanh(x @ w)` under a scan: w [6, 64, 64] cut along its second axis, x [16, 64] along its first.
"""

from pathlib import Path

import numpy as np
import pytest

from mfm_jax.pods.collectives import _groups, by_kind, collectives, whole_reductions
from mfm_jax.pods.hlo import Shape, read, shapes, traffic, trip_count

LAYERS, WIDTH = 6, 64
WEIGHT = 4 * WIDTH * WIDTH  # bytes of a layer's


@pytest.fixture(scope="module")
def program():
    return read(Path(__file__).with_name("fsdp_scan.hlo").read_text())


def test_types_are_read():
    found = shapes("(f32[2,3]{1,0:T(8,128)}, bf16[4]{0:T(128)S(1)}, /*index=2*/pred[], s4[8]{0})")
    assert [s.bytes for s in found] == [24, 8, 1, 4]
    assert [s.near for s in found] == [False, True, False, False]
    assert found[0] == Shape("f32", (2, 3), False)


def test_bodies_of_loops_count_every_round(program):
    loops = [i for _, _, i in program.running() if i.op == "while"]
    assert [trip_count(loop, program.computations) for loop in loops] == [LAYERS, LAYERS]
    assert not program.guessed
    assert program.rounds["region_0.1_spmd"] == LAYERS


def test_a_length_not_written_down_is_taken_from_the_condition(program):
    loop = next(i for _, _, i in program.running() if i.op == "while")
    bare = loop._replace(text=loop.text.split(", backend_config")[0])
    assert trip_count(bare, program.computations) == LAYERS


def test_collectives_of_a_sharded_step(program):
    found = collectives(program, per_slice=8)
    sums = by_kind(found)
    # Weights are gathered in both passes; gradients summed over fsdp, whole as CPUs do it, then over data.
    assert sums["all-gather"][:3] == (2, 2 * LAYERS, 2 * LAYERS * WEIGHT)
    assert sums["all-gather"].sent == 2 * LAYERS * WEIGHT * 3 / 4
    assert sums["all-reduce"].bytes == LAYERS * (WEIGHT + WEIGHT / 4)
    assert {one.groups.shape[1] for one in found if one.kind == "all-reduce"} == {4, 2}
    assert whole_reductions(found, {(WIDTH, WIDTH)}, 4, 1) == []  # too small to matter
    side = 8 * WIDTH, 8 * WIDTH
    large = [found[-1]._replace(kind="all-reduce", sides=(side,), groups=np.array([[0, 1], [2, 3]]))]
    assert whole_reductions(large, {side}, 2, 1) == [side]
    assert whole_reductions(large, {side}, 1, 2) == []  # along another axis
    assert whole_reductions(large, {(WIDTH, WIDTH)}, 2, 1) == []


def test_what_leaves_a_slice_is_told_apart(program):
    sums = by_kind(collectives(program, per_slice=4))
    assert sums["all-reduce (DCN)"].bytes == LAYERS * WEIGHT / 4  # data is the outer axis
    assert sums["all-reduce"].bytes == LAYERS * WEIGHT


SCATTER = """
HloModule m

%all-reduce-scatter.1 (p: f32[64,64]) -> f32[16,64] {
  %p = f32[64,64]{1,0} parameter(0)
  %all-reduce.1 = f32[64,64]{1,0} all-reduce(%p), replica_groups={{0,1,2,3}}, to_apply=%add
  %i = s32[] constant(0)
  ROOT %dynamic-slice.1 = f32[16,64]{1,0} dynamic-slice(%all-reduce.1, %i, %i), dynamic_slice_sizes={16,64}
}

ENTRY %main (x: f32[64,64]) -> f32[16,64] {
  %x = f32[64,64]{1,0} parameter(0)
  ROOT %fusion.1 = f32[16,64]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


BEHIND = """
HloModule m

%fused.1 (p: f32[4,8]) -> (f32[4,8], f32[16,8]) {
  %p = f32[4,8] parameter(0)
  %all-gather.1 = f32[16,8] all-gather(%p), replica_groups={{0,1,2,3}}, SET
  ROOT %custom-call.1 = (f32[4,8], f32[16,8]) custom-call(%all-gather.1), custom_call_target="START"
}

%async_collective_fusion.2 (p: f32[4,8], q: f32[16,8]) -> (f32[4,8], f32[16,8]) {
  %p = f32[4,8] parameter(0)
  %q = f32[16,8] parameter(1)
  %all-gather.2 = f32[16,8] all-gather(%p), replica_groups={{0,1,2,3}}, SET
  ROOT %tuple.1 = (f32[4,8], f32[16,8]) tuple(%p, %all-gather.2)
}

ENTRY %main (x: f32[4,8]) -> (f32[4,8], f32[16,8]) {
  %x = f32[4,8] parameter(0)
  %fusion.1 = (f32[4,8], f32[16,8]) fusion(%x), calls=%fused.1
  %a = f32[4,8] get-tuple-element(%fusion.1), index=0
  %b = f32[16,8] get-tuple-element(%fusion.1), index=1
  ROOT %fusion.2 = (f32[4,8], f32[16,8]) fusion(%a, %b), calls=%async_collective_fusion.2
}
""".replace("START", "AsyncCollectiveStart").replace(
    "SET", 'dimensions={0}, backend_config={"async_collective_fusion_config":{}}'
)


SEND = """
HloModule m

ENTRY %main (x: f32[4,8]) -> f32[4,8] {
  %x = f32[4,8] parameter(0)
  %t = token[] after-all()
  %send.1 = (f32[4,8], u32[], token[]) send(%x, %t), is_host_transfer=true, MORE
  ROOT %copy.1 = f32[4,8] copy(%x)
}
""".replace(
    "MORE",
    'frontend_attributes={_xla_megascale_target="{1,2}x{0:15}",_xla_megascale_transfer_type="ALL_REDUCE"}',
)


def test_what_hosts_send_for_their_slices_counts():
    sums = by_kind(collectives(read(SEND), per_slice=16))
    assert list(sums) == ["all-reduce (DCN)"]
    assert sums["all-reduce (DCN)"].sent == 4 * 8 * 4  # two slices: all of it, once


def test_a_gather_behind_other_work_counts_once():
    (only,) = collectives(read(BEHIND), per_slice=4)
    assert (only.kind, only.rounds, only.bytes) == ("all-gather", 1, 16 * 8 * 4)


def test_a_scatter_in_disguise_is_a_scatter():
    (only,) = collectives(read(SCATTER), per_slice=4)
    assert only[:4] == ("reduce-scatter", 1.0, WEIGHT, ((64, 64),))
    assert only.groups.tolist() == [[0, 1, 2, 3]]
    assert not only.crosses
    assert only.sent == WEIGHT * 3 / 4


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,2},{1,3}}, to_apply", [[0, 2], [1, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}", [[0, 2], [1, 3]]),
    ],
)
def test_groups_are_read_in_every_spelling(text, groups):
    np.testing.assert_array_equal(_groups(text), groups)


def test_traffic_counts_the_slice_and_not_the_stack():
    text = """
HloModule m

%cut (p0: f32[6,64,64], p1: s32[]) -> f32[64,64] {
  %p0 = f32[6,64,64]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %ds = f32[1,64,64]{2,1,0} dynamic-slice(%p0, %p1, %p1, %p1), dynamic_slice_sizes={1,64,64}
  ROOT %b = f32[64,64]{1,0} bitcast(%ds)
}

ENTRY %main (w: f32[6,64,64], i: s32[]) -> f32[64,64] {
  %w = f32[6,64,64]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %f = f32[64,64]{1,0} fusion(%w, %i), kind=kLoop, calls=%cut
}
"""
    assert traffic(read(text)) == 2 * WEIGHT + 4
