"""Writes opt/pre_norm.safetensors and opt/post_norm.safetensors: two tiny OPT models with all that
`crates/blip2-lm/tests/opt_parity.rs` and `opt_gradients.rs` compare.

Made with torch 2.15 and transformers 5.23 on a CPU: `python opt.py`.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import OPTConfig, OPTForCausalLM

HERE = Path(__file__).parent / "opt"

SHARED = dict(
    vocab_size=61,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    ffn_dim=48,
    max_position_embeddings=40,
    pad_token_id=1,
    bos_token_id=2,
    eos_token_id=2,
)
MODELS = {
    "pre_norm": dict(do_layer_norm_before=True, word_embed_proj_dim=32),
    "post_norm": dict(do_layer_norm_before=False, word_embed_proj_dim=20),
}
# The padding of each row of the inputs: none, left, right.
MASK = [[1] * 9, [0, 0, 0] + [1] * 6, [1] * 7 + [0, 0]]


def wide_model(extra):
    """A model whose weights are so large that a mistake in any of them shows."""
    config = OPTConfig(**SHARED, **extra, dropout=0.0, attn_implementation="eager")
    model = OPTForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm.weight" in name:
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) * parameter.shape[-1] ** -0.5 * 1.5)
    return model


def config_for_rust(extra):
    return json.dumps({**SHARED, **extra})


def export(name, extra):
    torch.manual_seed(len(name))
    model = wide_model(extra)
    mask = torch.tensor(MASK)
    ids = torch.randint(3, SHARED["vocab_size"], mask.shape)
    embeds = model.get_input_embeddings()(ids) + 0.1 * torch.randn(*mask.shape, extra["word_embed_proj_dim"])
    embeds = embeds.detach().requires_grad_()

    taps = {}
    decoder = model.model.decoder
    for index, layer in enumerate(decoder.layers):
        if index == 0:
            layer.register_forward_pre_hook(
                lambda _, args, kwargs: taps.update(embeddings=(args or [kwargs["hidden_states"]])[0]),
                with_kwargs=True,
            )
        layer.register_forward_hook(
            lambda _, args, out, key=f"layers.{index}": taps.update({key: out[0] if isinstance(out, tuple) else out})
        )
    output = decoder(inputs_embeds=embeds, attention_mask=mask, use_cache=False)
    taps["final"] = output.last_hidden_state
    logits = model.lm_head(output.last_hidden_state)

    # The caption is what follows the first two tokens. Padding is not scored, nor what it predicts.
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :2] = -100
    labels[:, 1:].masked_fill_(mask[:, :-1] == 0, -100)
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=-100
    )
    loss.backward()
    reference = model(inputs_embeds=embeds, attention_mask=mask, labels=labels)
    assert torch.allclose(reference.loss, loss, atol=1e-6), (reference.loss, loss)

    tensors = {key: value for key, value in model.state_dict().items() if key != "lm_head.weight"}
    tensors.update({f"tap.{key}": value for key, value in taps.items()})
    tensors.update({"inputs_embeds": embeds, "logits": logits, "grad": embeds.grad, "loss": loss[None]})
    tensors["embedded"] = model.get_input_embeddings()(ids)
    for key, value in (("mask", mask), ("ids", ids), ("labels", labels)):
        tensors[key] = value.float()
    tensors = {key: value.detach().float().contiguous() for key, value in tensors.items()}
    save_file(tensors, HERE / f"{name}.safetensors", metadata={"config": config_for_rust(extra)})


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, extra in MODELS.items():
        export(name, extra)
