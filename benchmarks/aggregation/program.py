"""``python -m benchmarks.aggregation.program``: XLA's programs of the kernels for an H200, without the card.

Compiles them for the card and reads the programs: memory beyond the arguments, products by the vendor's
library, whether the Gram's totals are added to in place, and whether a donated base is. No time is
measured, nothing runs. Needs ``pip install jax-cuda13-plugin`` beside a JAX of the same version.
"""

import os

# The plugin would ask for a card, and the compiler would try candidates on it.
os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_gpu_autotune_level=0", "--xla_gpu_enable_triton_gemm=false"]
)

import argparse
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from fedpl_kernels import _gram, _mix
from fedpl_kernels._columns import default_block
from jax._src import xla_bridge
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.machine import describe
from fedpl.files import write_json

RESULTS = Path(__file__).parents[1] / "results"
CARD = """
platform_name: "CUDA" device_description_str: "NVIDIA H200"
dnn_version_info { major: 9 minor: 10 } runtime_version { major: 13 }
gpu_device_info {
  cuda_compute_capability { major: 9 } core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  l2_cache_size: 52428800 memory_bandwidth: 4800000000000 device_memory_size: 150754820096
}
"""


def sharding() -> NamedSharding:
    """The one card that is not there."""
    known = xla_bridge.canonicalize_platform

    def canonicalize(platform: str) -> str:
        # JAX looks for the name "gpu" among the devices at hand.
        return "cuda" if platform == "gpu" else known(platform)

    xla_bridge.canonicalize_platform = canonicalize
    topology = topologies.get_topology_desc(platform="cuda", target_config=CARD, topology="1x1x1")
    return NamedSharding(topologies.make_mesh(topology, (1,), ("card",)), PartitionSpec())


def read(compiled: Any) -> dict[str, Any]:
    """Facts of a compiled program."""
    text, memory = compiled.as_text(), compiled.memory_analysis()
    products = re.findall(r"custom-call\(.*__cublas\$lt\$matmul.*", text)
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "in_place_bytes": memory.alias_size_in_bytes,
        "extra_bytes": memory.temp_size_in_bytes,
        "products": len(products),
        "products_added_in_place": sum("output_to_operand_aliasing" in product for product in products),
        "precision": sorted(set(re.findall(r'"operand_precision":\["(\w+)"', text))),
    }


def main() -> None:
    """Compile, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aggregation.program", description=__doc__)
    parser.add_argument("--n", type=int, default=8192)
    parser.add_argument("--d", type=int, default=1_000_000)
    options = parser.parse_args()
    n, d, whole = options.n, options.d, ((0, options.d),)
    block, where = default_block(n, "gpu"), sharding()

    def on_card(shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

    programs = []
    for dtype in (jnp.float32, jnp.bfloat16):
        x, base, p = on_card((n, d), dtype), on_card((n, d)), on_card((1, n, n))
        present = on_card((n,), jnp.bool_)
        for precision in ("highest", "tf32", "bf16"):
            gram = _gram.raw_gram.lower(x, precision, whole, block, "gpu").compile()
            mix = _mix._onto.lower(base, p, present, x, precision, whole, block).compile()
            for name, compiled in (("gram", gram), ("mix onto base", mix)):
                about = {"operation": name, "stored": jnp.dtype(dtype).name, "mode": precision}
                programs.append(about | read(compiled))
                print(programs[-1])
    found = describe() | {"compiled_for": "NVIDIA H200", "ran": False, "n": n, "d": d, "block": block}
    write_json(RESULTS / "aggregation-h200-program.json", found | {"programs": programs})


if __name__ == "__main__":
    main()
