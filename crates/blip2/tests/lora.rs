//! LoRA adapters against PEFT (tests/reference/lora.py), and what becomes of a captioner that has some.

mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blip2::checkpoint::export::{Export, ExportFormat, weights_of};
use blip2::checkpoint::names::{Address, Layout, Part};
use blip2::checkpoint::{Import, Precision};
use blip2::lora::{Adapter, LoraConfig, LoraParts, Quantization, Targets};
use blip2::{Blip2Caption, Tower};
use blip2_data::CaptionSample;
use blip2_lm::CausalLm;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Gradients, Int, Tensor, TensorData};
use fixture::{Expected, folder, load};
use safetensors::SafeTensors;
use serde_json::Value;

/// As in parity.rs: relative to the largest value; f32 rounds by 6e-8 an operation, and a value passes
/// about a hundred. Measured: 1.5e-6 at worst.
const TOLERANCE: f64 = 1e-5;

/// A gradient passes everything twice. Measured: 3e-6 at worst.
const GRADIENT_TOLERANCE: f64 = 5e-5;

const CASES: [&str; 2] = ["text", "parts"];

fn peft(case: &str) -> PathBuf {
    folder("../lora").join(case)
}

fn plain(device: &Device) -> Blip2Caption {
    load(&Import::new(folder("plain")), device).model
}

/// The model with PEFT's adapters.
fn adapted(case: &str, device: &Device) -> Blip2Caption {
    let adapter = Adapter::read(&peft(case)).unwrap_or_else(|error| panic!("{error}"));
    let model = plain(device).with_adapter(&adapter, device);
    model.unwrap_or_else(|error| panic!("{error}"))
}

fn samples(expected: &Expected) -> Vec<CaptionSample> {
    let prompt = expected.texts["prompt"].as_str().map(str::to_string);
    expected
        .list("captions")
        .into_iter()
        .map(|caption| CaptionSample {
            text: Some(caption),
            prompt: prompt.clone(),
            ..CaptionSample::default()
        })
        .collect()
}

fn images(expected: &Expected, device: &Device) -> Tensor<4> {
    let count = expected.list("captions").len();
    expected.images(device).narrow(0, 0, count)
}

fn loss(model: &Blip2Caption, expected: &Expected, device: &Device) -> Tensor<1> {
    let losses = model.loss(images(expected, device), &samples(expected));
    losses.unwrap().loss
}

/// The logits of a prompt and caption behind the queries.
fn logits(model: &Blip2Caption, expected: &Expected, row: usize, device: &Device) -> Tensor<2> {
    let prompt = expected.texts["prompt"].as_str().unwrap();
    let text = format!("{prompt} {}\n", expected.list("captions")[row]);
    let tokenizer = model.tokenizer();
    let mut ids = vec![i64::from(tokenizer.bos_id())];
    ids.extend(
        tokenizer
            .encode(&text)
            .unwrap()
            .iter()
            .map(|&id| i64::from(id)),
    );
    let count = ids.len();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, count]), device);
    let prefix = model.visual_prefix(images(expected, device).narrow(0, row, 1));
    let lm = model.text_backbone.get();
    let inputs = Tensor::cat(vec![prefix.clone(), lm.embed(ids).cast(prefix.dtype())], 1);
    let [_, length, _] = inputs.dims();
    let mask = Tensor::<2, Int>::ones([1, length], device);
    lm.logits(lm.forward(inputs, mask, None)).squeeze_dim(0)
}

fn distance(one: Tensor<2>, other: Tensor<2>) -> f32 {
    (one - other).abs().max().into_scalar::<f32>()
}

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
            let without = self::logits(&plain(&device), &texts, row, &device);
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

#[test]
fn what_was_read_from_peft_is_written_as_peft_had_it() {
    let device = Device::default();
    for case in CASES {
        let model = adapted(case, &device);
        let out = tempfile::tempdir().unwrap();
        let adapter = Adapter::of(&model, "the model").unwrap();
        let layers = model.linear_layers();
        adapter.write(out.path(), "blip2/plain", &layers).unwrap();
        let bytes = |folder: &Path| fs::read(folder.join("adapter_model.safetensors")).unwrap();
        let (ours, theirs) = (bytes(out.path()), bytes(&peft(case)));
        let (ours, theirs) = (
            SafeTensors::deserialize(&ours).unwrap(),
            SafeTensors::deserialize(&theirs).unwrap(),
        );
        let keys = |file: &SafeTensors| -> BTreeSet<String> {
            file.names().into_iter().map(str::to_string).collect()
        };
        assert_eq!(keys(&ours), keys(&theirs));
        for (key, theirs) in theirs.iter() {
            let ours = ours.tensor(key).unwrap();
            assert_eq!(ours.dtype(), theirs.dtype(), "{key}");
            assert_eq!(ours.shape(), theirs.shape(), "{key}");
            assert_eq!(ours.data(), theirs.data(), "{key}");
        }
        let config = |folder: &Path| -> Value {
            let text = fs::read_to_string(folder.join("adapter_config.json")).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        let (ours, theirs) = (config(out.path()), config(&peft(case)));
        for field in ["peft_type", "bias", "use_rslora", "base_model_name_or_path"] {
            assert_eq!(ours[field], theirs[field], "{field}");
        }
        // The same ranks and scales, in whatever words.
        let read = |folder: &Path| Adapter::read(folder).unwrap().layers;
        let (ours, theirs) = (read(out.path()), read(&peft(case)));
        assert_eq!(ours, theirs);
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

fn config(targets: &[&str]) -> LoraConfig {
    LoraConfig {
        target_modules: Targets::Names(targets.iter().map(|name| name.to_string()).collect()),
        r: 4,
        lora_alpha: 16.0,
        lora_dropout: 0.0,
        use_rslora: false,
        quantize: None,
        init: None,
    }
}

fn on_text(config: LoraConfig) -> LoraParts {
    LoraParts {
        text_backbone: Some(config),
        ..LoraParts::default()
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

#[test]
fn targets_that_match_nothing_are_an_error_that_lists_what_there_is() {
    let device = Device::default();
    let error = plain(&device)
        .with_lora(&on_text(config(&["query", "qkv"])), &device)
        .unwrap_err()
        .to_string();
    for word in [
        "model.lora.text_backbone.target_modules",
        "language_model.model.decoder.layers.*.self_attn.q_proj (×2)",
        "fc2 (×2)",
    ] {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

/// A copy of PEFT's folder, changed.
fn damaged(change: impl Fn(&mut Value, &mut BTreeMap<String, (Vec<usize>, Vec<f32>)>)) -> String {
    let out = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(peft("text").join("adapter_config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let bytes = fs::read(peft("text").join("adapter_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = file
        .iter()
        .map(|(key, view)| {
            let (numbers, _) = view.data().as_chunks::<4>();
            let values = numbers
                .iter()
                .map(|&four| f32::from_le_bytes(four))
                .collect();
            (key.to_string(), (view.shape().to_vec(), values))
        })
        .collect();
    change(&mut config, &mut tensors);
    fs::write(out.path().join("adapter_config.json"), config.to_string()).unwrap();
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(key, (shape, values))| {
            (
                key,
                shape,
                values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            )
        })
        .collect();
    let views = bytes.iter().map(|(key, shape, bytes)| {
        let dtype = safetensors::Dtype::F32;
        let view = safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes).unwrap();
        (key.clone(), view)
    });
    let file = out.path().join("adapter_model.safetensors");
    safetensors::serialize_to_file(views, None, &file).unwrap();
    let device = Device::default();
    let result = Adapter::read(out.path())
        .and_then(|adapter| plain(&device).with_adapter(&adapter, &device));
    match result {
        Err(error) => error.to_string(),
        Ok(_) => panic!("a damaged adapter was accepted"),
    }
}

const LAYER: &str =
    "base_model.model.language_model.model.decoder.layers.0.self_attn.q_proj.lora_A.weight";

#[test]
fn damaged_adapters_are_refused_by_name() {
    for (words, error) in [
        (
            vec!["use_dora"],
            damaged(|config, _| config["use_dora"] = true.into()),
        ),
        (
            vec![
                "q_proj.lora_A.weight",
                "expected shape [8, 20], found [4, 20]",
            ],
            damaged(|config, _| config["r"] = 8.into()),
        ),
        (
            vec!["self_attn.q_proj", "no `.lora_A.weight`", "damaged"],
            damaged(|_, tensors| {
                tensors.remove(LAYER);
            }),
        ),
        (
            vec!["target_modules", "k_proj", "no tensors"],
            damaged(|config, _| {
                config["target_modules"] = serde_json::json!(["q_proj", "v_proj", "k_proj"])
            }),
        ),
        (
            vec![
                "unexpected",
                "base_model.model.language_model.lm_head.weight",
            ],
            damaged(|_, tensors| {
                let key = "base_model.model.language_model.lm_head.weight";
                tensors.insert(key.into(), (vec![1], vec![0.0]));
            }),
        ),
        (
            vec!["language_projection", "no linear layer of"],
            damaged(|_, tensors| {
                for (half, shape) in [("A", vec![4, 16]), ("B", vec![20, 4])] {
                    let key = format!("base_model.model.language_projection.lora_{half}.weight");
                    let values = vec![0.0; shape.iter().product()];
                    tensors.insert(key, (shape, values));
                }
            }),
        ),
        (
            vec!["q_proj.lora_A.weight", "NaN"],
            damaged(|_, tensors| {
                tensors.get_mut(LAYER).unwrap().1[3] = f32::NAN;
            }),
        ),
    ] {
        for word in words {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
    }
}

#[test]
fn adapters_of_another_base_are_refused() {
    let device = Device::default();
    let adapter = Adapter::read(&peft("text")).unwrap();
    let other = load(&Import::new(folder("sharded")), &device).model;
    let error = other
        .with_adapter(&adapter, &device)
        .unwrap_err()
        .to_string();
    for word in ["q_proj", "20 inputs", "16", "another base"] {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    let mut checkpoint = Import::new(folder("sharded")).open().unwrap();
    let merged = adapter.merge_into(&mut checkpoint.weights, &checkpoint.architecture);
    assert!(merged.unwrap_err().to_string().contains("another base"));
    let twice = adapted("text", &device).with_adapter(&adapter, &device);
    assert!(
        twice
            .unwrap_err()
            .to_string()
            .contains("has adapters already")
    );
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
