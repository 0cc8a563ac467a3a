//! OPT's architecture, and its checks.

use blip2_kernels::LayerNorm;
use burn::module::Param;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::LmError;

/// Standard deviation of initial weights (`init_std` of OPT).
const INIT_STD: f64 = 0.02;

/// The position embedding's rows before position 0: OPT kept fairseq's padding offset.
pub(super) const POSITION_OFFSET: usize = 2;

/// An OPT model. Field names are Hugging Face's where it has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptConfig {
    /// Rows of the embedding; OPT pads its 50265 tokens to 50272.
    pub vocab_size: usize,
    /// Channels of a token inside the decoder.
    pub hidden_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Channels inside the feed-forward part.
    pub ffn_dim: usize,
    /// The most tokens of a row.
    pub max_position_embeddings: usize,
    /// Channels of a token embedding; where it isn't `hidden_size` (opt-350m), two projections
    /// stand between.
    pub word_embed_proj_dim: usize,
    /// A norm before attention and feed-forward; only opt-350m has it after.
    #[serde(default = "yes")]
    pub do_layer_norm_before: bool,
    /// The feed-forward activation.
    #[serde(default)]
    pub activation_function: Activation,
    /// Biases in the linear layers of a decoder layer.
    #[serde(default = "yes")]
    pub enable_bias: bool,
    /// The epsilon of all norms.
    #[serde(default = "default_eps")]
    pub layer_norm_eps: f64,
    /// Dropout after attention and feed-forward, in training only. A frozen model has none.
    #[serde(default)]
    pub dropout: f64,
    /// The padding token.
    #[serde(default = "default_pad")]
    pub pad_token_id: u32,
    /// The token that starts a text.
    #[serde(default = "default_bos")]
    pub bos_token_id: u32,
    /// The token that ends a text. (BLIP-2 ends captions with a line break instead.)
    #[serde(default = "default_bos")]
    pub eos_token_id: u32,
}

fn yes() -> bool {
    true
}

fn default_eps() -> f64 {
    1e-5
}

fn default_pad() -> u32 {
    1
}

fn default_bos() -> u32 {
    2
}

/// The feed-forward activation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(x, 0)`: all of Meta's OPT models.
    #[default]
    Relu,
    /// The exact GELU, with the error function (Galactica, which has OPT's architecture).
    Gelu,
}

impl Activation {
    /// `activation(linear(x))`
    pub(super) fn after(self, linear: &Linear, x: Tensor<3>) -> Tensor<3> {
        let activation = match self {
            Self::Relu => blip2_kernels::Activation::Relu,
            Self::Gelu => blip2_kernels::Activation::Gelu,
        };
        blip2_kernels::linear(x, linear, activation)
    }
}

impl OptConfig {
    /// Checks that the dimensions fit each other.
    ///
    /// # Errors
    ///
    /// Names the field.
    pub fn validate(&self) -> Result<(), LmError> {
        for (field, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("ffn_dim", self.ffn_dim),
            ("max_position_embeddings", self.max_position_embeddings),
            ("word_embed_proj_dim", self.word_embed_proj_dim),
        ] {
            if value == 0 {
                return Err(LmError::field(field, "must be at least 1"));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let reason = format!(
                "{} is not divisible by `num_attention_heads` {}",
                self.hidden_size, self.num_attention_heads
            );
            return Err(LmError::field("hidden_size", reason));
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps.is_finite()) {
            return Err(LmError::field(
                "layer_norm_eps",
                "must be a positive number",
            ));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(LmError::field(
                "dropout",
                "must be at least 0 and less than 1",
            ));
        }
        for (field, token) in [
            ("pad_token_id", self.pad_token_id),
            ("bos_token_id", self.bos_token_id),
            ("eos_token_id", self.eos_token_id),
        ] {
            if token as usize >= self.vocab_size {
                let reason = format!("{token} is not in a vocabulary of {}", self.vocab_size);
                return Err(LmError::field(field, reason));
            }
        }
        Ok(())
    }

    /// Numbers in the weights; the output layer shares the embedding and counts once.
    pub fn num_params(&self) -> usize {
        let (width, inner) = (self.hidden_size, self.ffn_dim);
        let norm = 2 * width;
        let biases = if self.enable_bias {
            5 * width + inner
        } else {
            0
        };
        let layer = 4 * width * width + 2 * width * inner + biases + 2 * norm;
        let projections = match self.has_projections() {
            true => 2 * width * self.word_embed_proj_dim,
            false => 0,
        };
        let final_norm = if self.do_layer_norm_before { norm } else { 0 };
        self.vocab_size * self.word_embed_proj_dim
            + (self.max_position_embeddings + POSITION_OFFSET) * width
            + self.num_hidden_layers * layer
            + projections
            + final_norm
    }

    /// Whether token embeddings are narrower or wider than the decoder.
    pub(super) fn has_projections(&self) -> bool {
        self.word_embed_proj_dim != self.hidden_size
    }

    pub(super) fn initializer() -> Initializer {
        Initializer::Normal {
            mean: 0.0,
            std: INIT_STD,
        }
    }

    /// A linear layer with random weights and a bias of zero.
    pub(super) fn linear(inputs: usize, outputs: usize, bias: bool, device: &Device) -> Linear {
        let mut linear = LinearConfig::new(inputs, outputs)
            .with_bias(false)
            .with_initializer(Self::initializer())
            .init(device);
        linear.bias =
            bias.then(|| -> Param<Tensor<1>> { Initializer::Zeros.init([outputs], device) });
        linear
    }

    /// `linear(x)` in the precision of `x`, whatever that of the weights.
    pub(super) fn apply(linear: &Linear, x: Tensor<3>) -> Tensor<3> {
        blip2_kernels::linear(x, linear, blip2_kernels::Activation::None)
    }

    pub(super) fn norm(&self, device: &Device) -> LayerNorm {
        LayerNorm::new(self.hidden_size, self.layer_norm_eps, device)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// opt-2.7b without its 2.65 billion numbers.
    pub(crate) fn tiny() -> OptConfig {
        OptConfig {
            vocab_size: 29,
            hidden_size: 12,
            num_hidden_layers: 2,
            num_attention_heads: 3,
            ffn_dim: 20,
            max_position_embeddings: 24,
            word_embed_proj_dim: 12,
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

    #[test]
    fn impossible_configs_name_their_field() {
        type Change = fn(&mut OptConfig);
        let cases: [(&str, Change); 6] = [
            ("hidden_size", |config| config.num_attention_heads = 5),
            ("ffn_dim", |config| config.ffn_dim = 0),
            ("layer_norm_eps", |config| config.layer_norm_eps = f64::NAN),
            ("dropout", |config| config.dropout = 1.0),
            ("pad_token_id", |config| config.pad_token_id = 29),
            ("eos_token_id", |config| config.eos_token_id = 50118),
        ];
        for (expected, change) in cases {
            let mut config = tiny();
            change(&mut config);
            match config.validate() {
                Err(LmError::Field { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
            assert!(config.init(&Device::flex()).is_err());
        }
        assert_eq!(tiny().validate(), Ok(()));
    }

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_have_opt_values() {
        let text = r#"{"vocab_size": 29, "hidden_size": 12, "num_hidden_layers": 2,
            "num_attention_heads": 3, "ffn_dim": 20, "max_position_embeddings": 24,
            "word_embed_proj_dim": 12"#;
        let parsed: OptConfig = serde_json::from_str(&format!("{text}}}")).unwrap();
        assert_eq!(parsed, tiny());
        let unknown = format!(r#"{text}, "layerdrop": 0.1}}"#);
        let error = serde_json::from_str::<OptConfig>(&unknown).unwrap_err();
        assert!(error.to_string().contains("layerdrop"), "{error}");
    }

    /// Published sizes, counted by transformers 5.23 with `tie_word_embeddings`.
    #[test]
    fn matches_transformers_parameter_counts() {
        let mut opt_2_7b = tiny();
        opt_2_7b.vocab_size = 50272;
        opt_2_7b.hidden_size = 2560;
        opt_2_7b.word_embed_proj_dim = 2560;
        opt_2_7b.num_hidden_layers = 32;
        opt_2_7b.num_attention_heads = 32;
        opt_2_7b.ffn_dim = 10240;
        opt_2_7b.max_position_embeddings = 2048;
        assert_eq!(opt_2_7b.num_params(), 2_651_596_800);

        let mut opt_350m = opt_2_7b;
        opt_350m.hidden_size = 1024;
        opt_350m.word_embed_proj_dim = 512;
        opt_350m.num_hidden_layers = 24;
        opt_350m.num_attention_heads = 16;
        opt_350m.ffn_dim = 4096;
        opt_350m.do_layer_norm_before = false;
        assert_eq!(opt_350m.num_params(), 331_196_416);
    }
}
