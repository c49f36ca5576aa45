"""Topologies to compile for: names such as `v5e:16x16`, `2xv5e:4x4` (two slices) and `h100:8`."""

import importlib.util
import math
import os
import re
from typing import NamedTuple

import jax
from jax.experimental import topologies

from mfm_jax.pods.chips import Chip, chip_named

NODE = 8  # GPUs of a machine
# Trying kernels out takes a GPU; without trials only cuBLAS has one for every product.
GPU_FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
# Only `libtpu` reads these: it must not look for a TPU's metadata server, and wants to hear of a host. As
# nothing runs, several processes may compile at once.
TPU_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
}
# What the compiler asks about an H100: limits of compute capability 9.0 (CUDA C++ Programming Guide,
# technical specifications); cores, clock, caches and memory of the SXM5 board (data sheet, white paper).
H100_LIMITS = """
platform_name: "CUDA"
device_description_str: "H100"
dnn_version_info { major: 9 }
runtime_version { major: 12 minor: 9 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  l2_cache_size: 52428800
  memory_bandwidth: 3352000000000
  device_memory_size: 80000000000
}
"""


class Target(NamedTuple):
    """What to compile for.

    Attributes:
        name: as given.
        chip: of each device.
        shape: of a slice: TPUs by side, GPUs as one number.
        slices: joined by the data centre's network.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]
    slices: int

    @property
    def size(self) -> int:
        """Devices in all slices."""
        return self.slices * math.prod(self.shape)


def parse(name: str) -> Target:
    """Read a target's name.

    Raises:
        ValueError: it is none, or its chip is unknown.
    """
    found = re.fullmatch(r"(?:(\d+)x)?([a-z]\w*):(\d+(?:x\d+)*)", name)
    if found is None:
        raise ValueError(f"target {name!r}: write CHIP:SHAPE or SLICESxCHIP:SHAPE, such as v5e:16x16, h100:8")
    chip = chip_named(found[2])
    shape = tuple(int(side) for side in found[3].split("x"))
    if chip.platform == "gpu" and len(shape) != 1:
        raise ValueError(f"target {name!r}: GPUs are one number, such as {chip.name}:8")
    return Target(name, chip, shape, int(found[1] or 1))


def devices(target: Target) -> list[jax.Device]:
    """Give the devices of a target, which can be compiled for but not run.

    Raises:
        ValueError: the compiler for them is not installed, or there is no such topology.
    """
    try:
        found = _gpus(target) if target.chip.platform == "gpu" else _tpus(target)
    except (RuntimeError, jax.errors.JaxRuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"target {target.name!r}: no such topology ({reason}); see --help") from None
    return found


def _tpus(target: Target) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(f"target {target.name!r} needs libtpu: pip install 'libtpu==0.0.42.*'")
    for name, value in TPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    shape = "x".join(str(side) for side in target.shape)
    more = {"num_slices": target.slices} if target.slices > 1 else {}
    name = f"{target.chip.name}:{shape}"
    return list(topologies.get_topology_desc(topology_name=name, platform="tpu", **more).devices)


def _gpus(target: Target) -> list[jax.Device]:
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        raise ValueError(
            f"target {target.name!r} needs CUDA's compiler: pip install --no-deps "
            f"jax-cuda12-plugin=={jax.__version__} jax-cuda12-pjrt=={jax.__version__}"
        )
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} {GPU_FLAGS}".strip()
    count = target.shape[0]
    nodes = max(1, count // NODE)
    shape = f"{target.slices}x{nodes}x{count // nodes}"
    more = {"target_config": H100_LIMITS, "topology": shape}
    return list(topologies.get_topology_desc(topology_name="h100", platform="cuda", **more).devices)
