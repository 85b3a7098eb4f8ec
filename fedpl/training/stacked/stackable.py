"""Which adapters can be stacked."""

from peft import LoraConfig, PeftModel
from peft.utils import ModulesToSaveWrapper
from torch import nn

from fedpl.errors import UserError
from fedpl.model.adapter import ADAPTER, is_linear, trainable

REMEDY = "set client.cohort_size to 1, which trains clients one by one through PEFT itself"

# Options of PEFT's LoraConfig that change more than A, B, their scale and whole linear layers.
_REFUSED = (
    "use_dora",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "velora_config",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)


def refuse_unstackable(model: PeftModel) -> None:
    """Name the option of an adapter that cannot be stacked.

    Raises:
        UserError: If there is one.
    """
    config = model.peft_config.get(ADAPTER)
    if not isinstance(config, LoraConfig):
        raise UserError(f"expected one LoRA adapter named '{ADAPTER}'; for another kind of adapter, {REMEDY}")
    options = [name for name in _REFUSED if getattr(config, name, None)]
    if config.bias != "none":
        options.append(f"bias='{config.bias}'")
    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            kept = module.modules_to_save[ADAPTER]
            if type(kept) is not nn.Linear:
                options.append(f"modules_to_save ({name} is a {type(kept).__name__}, not an nn.Linear)")
        elif hasattr(module, "lora_A") and not is_linear(module):
            options.append(f"target_modules ({name} is a {type(module).__name__})")
    if options:
        raise UserError(f"lora: cohorts cannot train {', '.join(options)}; {REMEDY}")
    strange = [n for n in trainable(model) if "lora_" in n and not n.endswith(("A.weight", "B.weight"))]
    if strange:
        raise UserError(f"lora: cohorts cannot train {', '.join(strange)}; {REMEDY}")
