"""Compiled programs, kept between processes: a second run starts warm."""

import hashlib
import os
import platform
from pathlib import Path

import jax

_MOST_BYTES = 256 << 20


def keep() -> None:
    """Keep what JAX compiles in the user's cache, unless JAX has been told where to (or not to).

    The folder's name says for which JAX and which processor: a home may be shared by unlike machines. Where
    it cannot be made nothing is kept.
    """
    asked, wanted = (
        getattr(jax.config, f"jax_{n}") for n in ("compilation_cache_dir", "enable_compilation_cache")
    )
    if asked is not None or not wanted:
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(home) / "fedpl" / f"programs-{jax.__version__}-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)
    # Many small programs are what a first round waits for.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _processor() -> str:
    """Digest of the processor's model and abilities."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    told = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    words = "\n".join([platform.machine(), platform.processor(), *sorted(told)])
    return hashlib.blake2b(words.encode(), digest_size=6).hexdigest()
