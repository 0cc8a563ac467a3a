//! Meta's OPT models.
//!
//! Reference: "OPT: Open Pre-trained Transformer Language Models" (arXiv 2205.01068), table 1, and
//! the configs beside the published weights.

use super::{Activation, OptConfig};

/// `facebook/opt-125m`.
pub fn opt_125m() -> OptConfig {
    opt(768, 12, 12)
}

/// `facebook/opt-350m`, the only one with norms after attention and feed-forward, and with token
/// embeddings narrower than the decoder.
pub fn opt_350m() -> OptConfig {
    OptConfig {
        word_embed_proj_dim: 512,
        do_layer_norm_before: false,
        ..opt(1024, 24, 16)
    }
}

/// `facebook/opt-1.3b`.
pub fn opt_1_3b() -> OptConfig {
    opt(2048, 24, 32)
}

/// `facebook/opt-2.7b`.
pub fn opt_2_7b() -> OptConfig {
    opt(2560, 32, 32)
}

/// `facebook/opt-6.7b`.
pub fn opt_6_7b() -> OptConfig {
    opt(4096, 32, 32)
}

/// The number of heads of the published model that is `hidden_size` wide.
pub fn num_attention_heads(hidden_size: usize) -> Option<usize> {
    Some(match hidden_size {
        768 => 12,
        1024 => 16,
        2048 | 2560 | 4096 => 32,
        5120 => 40,
        7168 => 56,
        9216 => 72,
        _ => return None,
    })
}

fn opt(hidden_size: usize, num_hidden_layers: usize, num_attention_heads: usize) -> OptConfig {
    OptConfig {
        vocab_size: 50272,
        hidden_size,
        num_hidden_layers,
        num_attention_heads,
        ffn_dim: 4 * hidden_size,
        max_position_embeddings: 2048,
        word_embed_proj_dim: hidden_size,
        do_layer_norm_before: true,
        activation_function: Activation::Relu,
        enable_bias: true,
        layer_norm_eps: 1e-5,
        dropout: 0.0,
        pad_token_id: 1,
        bos_token_id: 2,
        eos_token_id: 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `OPTForCausalLM(AutoConfig.from_pretrained(name)).num_parameters()` of transformers 5.23 for
    /// the sizes above, made on the device `meta`; see tests/reference/sizes.py.
    #[test]
    fn parameter_counts_are_those_of_transformers() {
        for (config, expected) in [
            (opt_125m(), 125_239_296),
            (opt_350m(), 331_196_416),
            (opt_1_3b(), 1_315_758_080),
            (opt_2_7b(), 2_651_596_800),
            (opt_6_7b(), 6_658_473_984),
        ] {
            assert_eq!(config.validate(), Ok(()));
            assert_eq!(config.num_params(), expected);
            assert_eq!(
                num_attention_heads(config.hidden_size),
                Some(config.num_attention_heads)
            );
        }
    }
}
