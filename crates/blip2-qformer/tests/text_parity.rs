//! The text branch against transformers: every intermediate and the gradients, in the three cases of
//! BLIP-2's first stage.

#[path = "../../blip2-vision/tests/fixture/mod.rs"]
mod fixture;
#[path = "../../blip2-vision/tests/fixture/gradients.rs"]
mod gradients;

use blip2_qformer::keymap::Names;
use blip2_qformer::{QFormer, QFormerConfig, TextMask};
use burn::module::Module;
use burn::tensor::{Device, FloatDType, Int, Tensor};
use fixture::Fixture;

/// As for the queries alone (parity.rs): one layer's error feeds the next. Measured: 8e-7 at worst,
/// after four layers.
const TOLERANCE_PER_LAYER: f64 = 2e-6;

/// A gradient goes through four layers forth and back, each of which may add 1e-6 of its largest
/// value. Measured: 3.8e-6 at worst.
const GRADIENT_TOLERANCE: f64 = 1e-5;

/// Attention weights are dropped with this probability: never in practice, but the path with
/// dropout runs.
const PRACTICALLY_ZERO: f64 = 1e-12;

struct Case {
    fixture: Fixture,
    config: QFormerConfig,
    qformer: QFormer,
    input_ids: Tensor<2, Int>,
    attention_mask: Tensor<2, Int>,
    image_embeds: Tensor<3>,
}

impl Case {
    fn new(device: &Device, change: impl Fn(&mut QFormerConfig)) -> Self {
        let fixture = Fixture::read("qformer/text.safetensors");
        let mut config: QFormerConfig = fixture.config();
        change(&mut config);
        let (qformer, used) = fixture.load(config.init(device).unwrap(), |path| {
            let key = Names::HuggingFace.key(path);
            let back = Names::HuggingFace
                .locate(&key)
                .or_else(|| Names::HuggingFace.locate_text(&key));
            assert_eq!(back.as_deref(), Some(path), "{key}");
            vec![key]
        });
        assert_eq!(fixture.names("weight."), used, "every weight is used");
        let int = |name| fixture.tensor::<2>(name, device).int();
        Self {
            input_ids: int("input.input_ids"),
            attention_mask: int("input.attention_mask"),
            image_embeds: fixture.tensor("input.image_embeds", device),
            config,
            qformer,
            fixture,
        }
    }

    fn text(&self) -> Tensor<3> {
        let Self {
            input_ids,
            attention_mask,
            ..
        } = self;
        self.qformer
            .forward_text(input_ids.clone(), attention_mask.clone())
    }

    fn together(&self, mask: TextMask) -> Tensor<3> {
        self.qformer.forward_multimodal(
            self.input_ids.clone(),
            self.attention_mask.clone(),
            self.image_embeds.clone(),
            mask,
        )
    }

    fn unimodal(&self) -> Tensor<3> {
        let queries = self.qformer.forward(self.image_embeds.clone());
        Tensor::cat(vec![queries, self.text()], 1)
    }

    /// The images in another order and back, by shared keys.
    fn bidirectional_by_keys(&self) -> Tensor<3> {
        let device = self.image_embeds.device();
        let order = Tensor::<1, Int>::from_data([3, 2, 1, 0], &device);
        let turned = self.image_embeds.clone().select(0, order.clone());
        self.qformer.forward_multimodal_keys(
            self.input_ids.clone(),
            self.attention_mask.clone(),
            &self.qformer.image_keys(&turned).select(&order),
        )
    }

    fn causal_after_queries(&self) -> Tensor<3> {
        let keys = self.qformer.image_keys(&self.image_embeds);
        let (queries, states) = self.qformer.forward_keys(&keys);
        let (ids, mask) = (self.input_ids.clone(), self.attention_mask.clone());
        let text = self.qformer.forward_text_after(ids, mask, &states);
        Tensor::cat(vec![queries, text], 1)
    }

    /// Runs one pass, checks what it shows, and that the pass without taps is the same.
    fn check_taps(
        &self,
        name: &str,
        plain: Tensor<3>,
        pass: impl FnOnce(&mut dyn FnMut(&str, &Tensor<3>)) -> Tensor<3>,
    ) {
        let mut taps = Vec::new();
        let output = pass(&mut |tap, tensor| taps.push((tap.to_string(), tensor.clone())));
        assert_eq!(taps.len(), 1 + self.config.num_hidden_layers);
        assert_eq!(
            taps.len(),
            self.fixture.names(&format!("tap.{name}.")).len()
        );
        for (depth, (tap, tensor)) in taps.into_iter().enumerate() {
            let tolerance = TOLERANCE_PER_LAYER * (depth + 1) as f64;
            self.fixture
                .check(&format!("tap.{name}.{tap}"), tensor, tolerance);
        }
        assert_eq!(greatest(output - plain), 0.0);
    }

    fn check_together(&self, name: &str, mask: TextMask) {
        self.check_taps(name, self.together(mask), |tap| {
            self.qformer.forward_multimodal_with_taps(
                self.input_ids.clone(),
                self.attention_mask.clone(),
                self.image_embeds.clone(),
                mask,
                tap,
            )
        });
    }
}

fn greatest(tensor: Tensor<3>) -> f32 {
    tensor.abs().max().into_scalar()
}

#[test]
fn matches_transformers_text_alone_with_padding() {
    let case = Case::new(&Device::default(), |_| ());
    case.check_taps("unimodal.text", case.text(), |tap| {
        case.qformer.forward_text_with_taps(
            case.input_ids.clone(),
            case.attention_mask.clone(),
            tap,
        )
    });
}

#[test]
fn matches_transformers_queries_alone_beside_a_text_branch() {
    let case = Case::new(&Device::default(), |_| ());
    let images = case.image_embeds.clone();
    case.check_taps(
        "unimodal.queries",
        case.qformer.forward(images.clone()),
        |tap| case.qformer.forward_with_taps(images, tap),
    );
}

#[test]
fn matches_transformers_queries_and_text_that_see_each_other() {
    Case::new(&Device::default(), |_| ()).check_together("bidirectional", TextMask::Bidirectional);
}

#[test]
fn matches_transformers_queries_and_text_under_the_causal_mask() {
    Case::new(&Device::default(), |_| ()).check_together("causal", TextMask::MultimodalCausal);
}

#[test]
fn matches_transformers_gradients_with_text() {
    type Pass = fn(&Case) -> Tensor<3>;
    let passes: [(&str, Pass); 5] = [
        ("unimodal", Case::unimodal),
        ("bidirectional", |case| {
            case.together(TextMask::Bidirectional)
        }),
        ("causal", |case| case.together(TextMask::MultimodalCausal)),
        ("bidirectional", Case::bidirectional_by_keys),
        ("causal", Case::causal_after_queries),
    ];
    let device = Device::default().autodiff();
    for attention_probs_dropout_prob in [0.0, PRACTICALLY_ZERO] {
        let case = Case::new(&device, |config| {
            config.hidden_dropout_prob = 0.0;
            config.attention_probs_dropout_prob = attention_probs_dropout_prob;
        });
        let probe: Tensor<3> = case.fixture.tensor("input.probe", &device);
        for (name, pass) in passes {
            let gradients = (pass(&case) * probe.clone()).sum().backward();
            let checked = case.fixture.check_gradients(
                &case.qformer,
                &gradients,
                |path| format!("{name}.{}", Names::HuggingFace.key(path)),
                GRADIENT_TOLERANCE,
            );
            let expected: Vec<_> = case
                .fixture
                .names(&format!("grad.{name}."))
                .into_iter()
                .collect();
            let checked: Vec<_> = checked
                .iter()
                .filter_map(|key| Some(key.strip_prefix(name)?[1..].to_string()))
                .collect();
            assert_eq!(checked, expected);
        }
    }
}

#[test]
fn text_passes_drop_in_training_only() {
    let device = Device::default().autodiff();
    device.seed(7);
    let passes: [fn(&Case) -> Tensor<3>; 2] =
        [Case::text, |case| case.together(TextMask::Bidirectional)];
    for (hidden, attention) in [(0.0, 0.5), (0.5, 0.0), (0.0, 0.0)] {
        let mut case = Case::new(&device, |config| {
            config.hidden_dropout_prob = hidden;
            config.attention_probs_dropout_prob = attention;
        });
        let training = passes.map(|pass| pass(&case));
        case.qformer = case.qformer.freeze();
        for (pass, training) in passes.iter().zip(training) {
            let difference = greatest(training - pass(&case));
            if hidden + attention > 0.0 {
                assert!(difference > 0.1, "{difference}");
            } else {
                assert_eq!(difference, 0.0);
            }
        }
    }
}

#[test]
fn half_precision_image_embeds_are_widened_to_the_weights_type() {
    let mut case = Case::new(&Device::default(), |_| ());
    let half = case.image_embeds.clone().cast(FloatDType::F16);
    case.image_embeds = half.clone().cast(FloatDType::F32);
    let expected = case.together(TextMask::Bidirectional);
    case.image_embeds = half;
    let output = case.together(TextMask::Bidirectional);
    assert_eq!(greatest(output - expected), 0.0);
}
