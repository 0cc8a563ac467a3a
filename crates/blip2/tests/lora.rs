//! LoRA adapters against PEFT (tests/reference/lora.py), and what becomes of a captioner that has some.

mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use blip2::checkpoint::export::{Export, ExportFormat, weights_of};
use blip2::checkpoint::names::{Address, Layout, Part};
use blip2::checkpoint::{Import, Precision};
use blip2::lora::{Adapter, LoraConfig, LoraParts, Quantization, Targets};
use blip2::{Blip2Caption, Tower};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Gradients, Tensor};
use fixture::adapters::{CASES, adapted, config, distance, logits, loss, on_text, peft, plain};
use fixture::{Expected, folder, load};

/// As in parity.rs: relative to the largest value; f32 rounds by 6e-8 an operation, and a value passes
/// about a hundred. Measured: 1.5e-6 at worst.
const TOLERANCE: f64 = 1e-5;

/// A gradient passes everything twice. Measured: 3e-6 at worst.
const GRADIENT_TOLERANCE: f64 = 5e-5;

#[test]
fn matches_peft_logits_and_loss() {
    let device = Device::default();
    let texts = Expected::read("plain");
    for case in CASES {
        println!("== {case}");
        let expected = Expected::read(&format!("../lora/{case}"));
        let model = adapted(case, &device);
        for row in [0, 2] {
            let logits = logits(&model, &texts, row, &device);
            // The adapter matters: without it the same logits are far away.
            let without = fixture::adapters::logits(&plain(&device), &texts, row, &device);
            assert!(distance(logits.clone(), without) > 0.1);
            expected.check(&format!("logits.{row}"), logits, TOLERANCE);
        }
        expected.check("loss", loss(&model, &texts, &device), TOLERANCE);
    }
}

/// Names and gradients of everything that a visitor sees.
struct Seen<'a> {
    part: Part,
    gradients: Option<&'a Gradients>,
    path: Vec<String>,
    found: BTreeMap<String, Option<Tensor<2>>>,
}

impl ModuleVisitor for Seen<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let (weight, factor) = match path.rsplit_once(".lora.") {
            Some((weight, "a")) => (weight, "lora_A"),
            Some((weight, "b")) => (weight, "lora_B"),
            _ => panic!("`{path}` is seen, but is no adapter"),
        };
        let address = Address {
            part: self.part,
            path: weight.to_string(),
        };
        let key = Layout::HuggingFace.keys(&address).remove(0).name;
        let key = key.replace(".weight", &format!(".{factor}.weight"));
        let gradient = self.gradients.map(|gradients| {
            let gradient = param.val().grad(gradients).expect("a gradient");
            // Torch has them the other way round.
            Tensor::<2>::from_data(gradient.into_data(), &Device::default()).transpose()
        });
        self.found.insert(key, gradient);
    }
}

fn seen<M: Module>(
    part: Part,
    tower: &Tower<M>,
    gradients: Option<&Gradients>,
) -> BTreeMap<String, Option<Tensor<2>>> {
    let mut seen = Seen {
        part,
        gradients,
        path: Vec::new(),
        found: BTreeMap::new(),
    };
    if tower.is_adapted() {
        tower.visit(&mut seen);
    }
    seen.found
}

fn seen_adapters(
    model: &Blip2Caption,
    gradients: Option<&Gradients>,
) -> BTreeMap<String, Option<Tensor<2>>> {
    let mut all = seen(Part::VisionBackbone, &model.vision_backbone, gradients);
    all.extend(seen(
        Part::MultimodalBackbone,
        &model.multimodal_backbone,
        gradients,
    ));
    all.extend(seen(Part::TextBackbone, &model.text_backbone, gradients));
    all
}

#[test]
fn matches_peft_gradients_of_a_and_b_which_are_all_that_learns_of_an_adapted_part() {
    let device = Device::default().autodiff();
    let texts = Expected::read("plain");
    for case in CASES {
        println!("== {case}");
        let expected = Expected::read(&format!("../lora/{case}"));
        let model = adapted(case, &device);
        let gradients = loss(&model, &texts, &device).backward();
        let found = seen_adapters(&model, Some(&gradients));
        let names: BTreeSet<String> = expected.names("grad.").into_iter().collect();
        let ours: BTreeSet<String> = found.keys().map(|key| format!("grad.{key}")).collect();
        assert_eq!(names, ours);
        for (key, gradient) in found {
            let gradient = gradient.unwrap();
            // A key's adapter has a gradient through its part across positions only; still none is zero.
            expected.check(&format!("grad.{key}"), gradient, GRADIENT_TOLERANCE);
        }
    }
}

/// Rounding of `W + scale · b · a` to f32 against two products: sums of 24 terms.
#[test]
fn merged_weights_give_what_composed_ones_give() {
    let device = Device::default();
    let texts = Expected::read("plain");
    for case in CASES {
        let model = adapted(case, &device);
        let composed = logits(&model, &texts, 0, &device);
        let merged = model.clone().materialize();
        assert!(merged.text_backbone.is_frozen());
        let error = distance(composed.clone(), logits(&merged, &texts, 0, &device));
        println!("{case}: merged in memory {error:.1e}");
        assert!(error < 2e-5, "{error}");

        // From files to files, and back.
        let mut checkpoint = Import::new(folder("plain")).open().unwrap();
        let adapter = Adapter::read(&peft(case)).unwrap();
        adapter
            .merge_into(&mut checkpoint.weights, &checkpoint.architecture)
            .unwrap();
        let out = tempfile::tempdir().unwrap();
        let tokenizer = checkpoint.read_tokenizer().unwrap();
        let export = |weights| Export {
            architecture: &checkpoint.architecture,
            weights,
            processor: &checkpoint.processor,
            generation: &checkpoint.generation,
            tokenizer: Some(&tokenizer),
            image_token_id: checkpoint.image_token_id,
        };
        let silent: blip2::checkpoint::Progress = Arc::new(|_, _| {});
        let from_files = out.path().join("files");
        export(&checkpoint.weights)
            .write(&from_files, ExportFormat::HuggingFace, None, &silent)
            .unwrap();
        let of_memory = weights_of(&model, Path::new("memory"));
        let from_memory = out.path().join("memory");
        export(&of_memory)
            .write(&from_memory, ExportFormat::HuggingFace, None, &silent)
            .unwrap();
        for written in [from_files, from_memory] {
            let read = load(&Import::new(written), &device).model;
            let error = distance(composed.clone(), logits(&read, &texts, 0, &device));
            assert!(error < 2e-5, "{error}");
        }
    }
}

#[test]
fn new_adapters_change_nothing_until_b_learns() {
    let device = Device::default().autodiff();
    let texts = Expected::read("plain");
    let before = logits(&plain(&device), &texts, 0, &device).inner();
    let lora = on_text(config(&["q_proj", "fc1"]));
    let model = plain(&device).with_lora(&lora, &device).unwrap();
    let after = logits(&model, &texts, 0, &device).inner();
    assert_eq!(distance(before, after), 0.0);
    let gradients = loss(&model, &texts, &device).backward();
    for (key, gradient) in seen_adapters(&model, Some(&gradients)) {
        let largest = gradient.unwrap().abs().max().into_scalar::<f32>();
        assert_eq!(largest > 0.0, key.contains("lora_B"), "{key}: {largest}");
    }
    // PEFT draws `a` within ±1/√inputs.
    let adapter = Adapter::of(&model, "the model").unwrap();
    for layer in &adapter.layers {
        let limit = 1.0 / (layer.inputs as f32).sqrt();
        let largest = layer.a.iter().fold(0.0f32, |most, a| most.max(a.abs()));
        assert!(largest <= limit && largest > 0.8 * limit, "{largest}");
    }
}

#[test]
fn a_recipe_starts_from_the_adapters_of_a_folder() {
    let device = Device::default();
    let texts = Expected::read("plain");
    let mut lora = on_text(config(&["q_proj", "v_proj"]));
    lora.text_backbone.as_mut().unwrap().init = Some(peft("text"));
    let start = |lora: &LoraParts| {
        let model = plain(&device).with_lora(lora, &device).unwrap();
        model.with_adapters_from(lora)
    };
    let expected = Expected::read("../lora/text");
    let model = start(&lora).unwrap();
    let logits = logits(&model, &texts, 0, &device);
    expected.check("logits.0", logits, TOLERANCE);

    type Change = fn(&mut LoraConfig);
    let changes: [(Change, &[&str]); 4] = [
        (
            |config| config.r = 8,
            &["lora.text_backbone.r", "rank 4, not 8"],
        ),
        (
            |config| config.lora_alpha = 8.0,
            &["lora.text_backbone.lora_alpha", "scale 4, not 2"],
        ),
        (
            |config| config.target_modules = Targets::Names(vec!["q_proj".into()]),
            &["target_modules", "v_proj", "not named here"],
        ),
        (
            |config| config.target_modules = Targets::Pattern(r".*[qkv]_proj".into()),
            &["target_modules", "has no adapter for", "k_proj"],
        ),
    ];
    for (change, words) in changes {
        let mut changed = lora.clone();
        change(changed.text_backbone.as_mut().unwrap());
        let error = start(&changed).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
    }
}

/// Bytes of a part's constants.
#[derive(Default)]
struct Bytes(usize);

impl ModuleVisitor for Bytes {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 += param.val().into_data().as_bytes().len();
    }
}

/// Whether a constant of the language model is quantized.
fn has_quantized(model: &Blip2Caption) -> bool {
    struct Search(bool);
    impl ModuleVisitor for Search {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= matches!(param.val().dtype(), DType::QFloat(_));
        }
    }
    let mut search = Search(false);
    model.text_backbone.visit_constants(&mut search);
    search.0
}

fn bytes(model: &Blip2Caption) -> usize {
    let mut bytes = Bytes::default();
    model.text_backbone.visit_constants(&mut bytes);
    bytes.0
}

#[test]
fn a_quantized_base_computes_with_what_it_stands_for_and_only_adapters_learn() {
    let texts = Expected::read("plain");
    let lora = |quantize| {
        let targets = ["q_proj", "v_proj"];
        let config = LoraConfig {
            quantize,
            init: Some(peft("text")),
            ..config(&targets)
        };
        on_text(config)
    };
    for device in [Device::default(), Device::default().autodiff()] {
        let make = |quantize| {
            let lora = lora(quantize);
            let model = plain(&device).with_lora(&lora, &device).unwrap();
            model.with_adapters_from(&lora).unwrap()
        };
        let (whole, quantized) = (make(None), make(Some(Quantization::Int8)));
        assert!(has_quantized(&quantized));
        // Six matrices a layer in a byte a number and a scale for 20 or 22; the rest as it was.
        println!("{} and {} bytes", bytes(&whole), bytes(&quantized));
        assert!(bytes(&quantized) < bytes(&whole));

        let near = logits(&whole, &texts, 0, &device).inner();
        let composed = logits(&quantized, &texts, 0, &device).inner();
        let rounded = distance(near, composed.clone());
        assert!(rounded > 1e-4 && rounded < 0.3, "{rounded}");
        // Written out and read back, the base is what its bytes stand for.
        let merged = quantized.clone().materialize();
        let dequantized = logits(&merged, &texts, 0, &device).inner();
        let error = distance(composed, dequantized);
        println!("composed and merged differ by {error:.1e}");
        assert!(error < 2e-5, "{error}");

        if device.is_autodiff() {
            let gradients = loss(&quantized, &texts, &device).backward();
            assert_eq!(seen_adapters(&quantized, Some(&gradients)).len(), 8);
        }
    }
}

#[test]
fn a_half_precision_base_stays_so_under_adapters() {
    let device = Device::default().autodiff();
    let texts = Expected::read("plain");
    let checkpoint = Import::new(folder("plain")).open().unwrap();
    let half = checkpoint
        .load(&device, Precision::BF16, None)
        .unwrap()
        .model;
    let adapter = Adapter::read(&peft("text")).unwrap();
    let model = half.with_adapter(&adapter, &device).unwrap();
    let whole = logits(&adapted("text", &device), &texts, 0, &device);
    let rounded = distance(whole.inner(), logits(&model, &texts, 0, &device).inner());
    assert!(rounded > 1e-4 && rounded < 0.3, "{rounded}");
    let gradients = loss(&model, &texts, &device).backward();
    assert_eq!(seen_adapters(&model, Some(&gradients)).len(), 8);
}

#[test]
fn adapters_alone_learn_where_a_recipe_says_so() {
    let device = Device::default().autodiff();
    let texts = Expected::read("plain");
    let lora = LoraParts {
        adapters_only: true,
        ..on_text(config(&["q_proj"]))
    };
    let model = plain(&device).with_lora(&lora, &device).unwrap();
    let mut seen = Seen {
        part: Part::TextBackbone,
        gradients: None,
        path: Vec::new(),
        found: BTreeMap::new(),
    };
    // Panics at anything but an adapter.
    model.visit(&mut seen);
    assert_eq!(seen.found.len(), 4);
    let gradients = loss(&model, &texts, &device).backward();
    assert_eq!(seen_adapters(&model, Some(&gradients)).len(), 4);
    // And back from validation.
    let again = model.valid().train();
    let gradients = loss(&again, &texts, &device).backward();
    assert_eq!(seen_adapters(&again, Some(&gradients)).len(), 4);
}
