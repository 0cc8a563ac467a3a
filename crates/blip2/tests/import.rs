//! The same model in the files of transformers, LAVIS, mmpretrain and Burn; towers alone.

mod fixture;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blip2::checkpoint::export::{Export, ExportFormat};
use blip2::checkpoint::names::{Address, Layout, Part};
use blip2::checkpoint::{Checkpoint, Import, Precision, WeightsDType, load_opt, load_vision};
use blip2_lm::CausalLm;
use blip2_vision::VisionConfig;
use blip2_vision::keymap::Names;
use blip2_vision::presets::clip_vit_l_14;
use burn::tensor::{DType, Device, Int, Tensor, Tolerance};
use fixture::{Expected, folder};

/// f32 rounding over three layers, relative to the largest value. Measured: 1e-6.
const TOLERANCE: f64 = 1e-5;

fn open(import: &Import) -> Checkpoint {
    import.open().unwrap_or_else(|error| panic!("{error}"))
}

fn with_base(path: &str, base: &str) -> Import {
    Import {
        bases: vec![folder(base)],
        ..Import::new(folder(path))
    }
}

/// Every tensor's bytes in f32, but for the bias on the image encoder's keys, which LAVIS and
/// mmpretrain do not have and which changes nothing.
fn values(checkpoint: &Checkpoint) -> BTreeMap<Address, Vec<u8>> {
    let expected = checkpoint.architecture.expected().unwrap();
    expected
        .keys()
        .map(|address| {
            let weight = &checkpoint.weights.tensors[address];
            let mut bytes = weight.read(DType::F32).unwrap();
            if weight.burn_layout && expected[address].transposed {
                bytes = transposed(&bytes, &weight.shape);
            }
            if address.path.ends_with("qkv.bias") {
                let third = bytes.len() / 3;
                bytes[third..2 * third].fill(0);
            }
            (address.clone(), bytes)
        })
        .collect()
}

fn transposed(bytes: &[u8], shape: &[usize]) -> Vec<u8> {
    let (rows, columns) = (shape[0], shape[1]);
    let mut turned = Vec::with_capacity(bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            turned.extend_from_slice(&bytes[4 * (row * columns + column)..][..4]);
        }
    }
    turned
}

#[test]
fn lavis_and_mmpretrain_files_hold_the_same_model() {
    let plain = open(&Import::new(folder("plain")));
    assert_eq!(plain.report.loaded.len(), plain.weights.tensors.len());
    let plain_values = values(&plain);

    let full = open(&with_base("lavis_full.pth", "plain"));
    assert_eq!(full.weights.layout, Layout::Lavis(Names::Eva));
    assert!(full.report.supplied.is_empty(), "{}", full.report);
    // The tied output layer and five keys of stage 1.
    assert_eq!(full.report.dropped.len(), 7, "{}", full.report);
    assert_eq!(values(&full), plain_values);

    let trained = open(&with_base("lavis_trained.pth", "plain"));
    let towers = [Part::VisionBackbone, Part::TextBackbone];
    let expected = plain
        .weights
        .tensors
        .keys()
        .filter(|address| towers.contains(&address.part));
    assert_eq!(trained.report.supplied.len(), expected.count());
    assert_eq!(values(&trained), plain_values);

    let mmpretrain = open(&with_base("mmpretrain.pth", "plain"));
    assert_eq!(mmpretrain.weights.layout, Layout::Mmpretrain);
    let parts = mmpretrain.report.supplied.iter();
    assert!(
        parts
            .map(|(key, _)| key)
            .all(|key| key.starts_with("text_backbone.model.decoder."))
    );
    assert_eq!(values(&mmpretrain), plain_values);
    for checkpoint in [full, trained, mmpretrain] {
        let report = checkpoint.report.to_string();
        for line in [
            "loaded: ",
            "supplied by base: ",
            "missing: none",
            "unexpected: none",
        ] {
            assert!(report.contains(line), "{report}");
        }
        checkpoint
            .load(&Device::default(), Precision::F32, None)
            .unwrap();
    }
}

#[test]
fn without_a_base_the_missing_keys_are_named() {
    // The architecture is the base's; of the base's weights the file names nothing.
    let mut import = Import::new(folder("mmpretrain.pth"));
    let error = import.open().unwrap_err().to_string();
    assert!(
        error.contains("num_attention_heads") && error.contains("base"),
        "{error}"
    );
    let empty = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "processor_config.json"] {
        std::fs::copy(folder("plain").join(file), empty.path().join(file)).unwrap();
    }
    std::fs::copy(folder("mmpretrain.pth"), empty.path().join("model.pth")).unwrap();
    import.path = empty.path().to_path_buf();
    let checkpoint = open(&import);
    let error = checkpoint
        .load(&Device::default(), Precision::F32, None)
        .unwrap_err();
    let error = error.to_string();
    for expected in [
        "missing: ",
        "text_backbone.model.decoder.embed_positions.weight",
        "more",
        "base",
    ] {
        assert!(error.contains(expected), "{error}");
    }
    assert!(checkpoint.report.to_string().contains("missing: "));
}

#[test]
fn stage_one_heads_are_dropped_and_said_to_be() {
    let checkpoint = open(&Import::new(folder("bfloat16")));
    assert_eq!(checkpoint.report.dropped.len(), 7, "{}", checkpoint.report);
    assert!(checkpoint.report.unexpected.is_empty());
    let report = checkpoint.report.to_string();
    assert!(report.contains("stage 1"), "{report}");
}

#[test]
fn precision_is_as_stored_or_as_asked_for_and_the_rest_is_f32() {
    let checkpoint = open(&Import::new(folder("bfloat16")));
    let device = Device::default();
    for (precision, expected) in [
        (Precision::Stored, DType::BF16),
        (Precision::F32, DType::F32),
        (Precision::F16, DType::F16),
    ] {
        let told = Arc::new(std::sync::Mutex::new((0, 0)));
        let tell = told.clone();
        let progress: blip2::checkpoint::Progress = Arc::new(move |done, total| {
            *tell.lock().unwrap() = (done, total);
        });
        let model = checkpoint
            .load(&device, precision, Some(progress))
            .unwrap()
            .model;
        let ids = Tensor::<2, Int>::from_data([[3]], &device);
        assert_eq!(model.text_backbone.get().embed(ids).dtype(), expected);
        assert_eq!(model.ln_vision.gamma.val().dtype(), DType::F32);
        let (done, total) = *told.lock().unwrap();
        assert!(done == total && total > 0, "{done} of {total} bytes");
    }
}

fn export(
    checkpoint: &Checkpoint,
    folder: &Path,
    format: ExportFormat,
    dtype: Option<WeightsDType>,
) -> Vec<PathBuf> {
    let tokenizer = checkpoint.read_tokenizer().unwrap();
    let export = Export {
        architecture: &checkpoint.architecture,
        weights: &checkpoint.weights,
        processor: &checkpoint.processor,
        generation: &checkpoint.generation,
        tokenizer: Some(&tokenizer),
        image_token_id: checkpoint.image_token_id,
    };
    let silent: blip2::checkpoint::Progress = Arc::new(|_, _| {});
    export
        .write(folder, format, dtype, &silent)
        .unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_format_goes_there_and_back() {
    for name in ["plain", "sharded", "bfloat16", "pickle"] {
        let source = open(&Import::new(folder(name)));
        let expected = values(&source);
        for format in [
            ExportFormat::HuggingFace,
            ExportFormat::Lavis,
            ExportFormat::Burnpack,
        ] {
            let target = tempfile::tempdir().unwrap();
            let files = export(&source, target.path(), format, None);
            assert!(files.iter().all(|file| file.is_file()), "{files:?}");
            let back = open(&Import::new(target.path()));
            assert!(back.report.check().is_ok(), "{}", back.report);
            assert_eq!(back.architecture, source.architecture, "{name} {format:?}");
            assert_eq!(back.processor, source.processor);
            assert_eq!(
                back.generation.eos_token_ids,
                source.generation.eos_token_ids
            );
            assert_eq!(values(&back), expected, "{name} {format:?}");
            let texts = ["a dog on the grass\n", "☂ two"];
            let (before, after) = (
                source.read_tokenizer().unwrap(),
                back.read_tokenizer().unwrap(),
            );
            for text in texts {
                assert_eq!(before.encode(text).unwrap(), after.encode(text).unwrap());
            }
        }
    }
}

#[test]
fn asked_for_precision_is_written() {
    let source = open(&Import::new(folder("plain")));
    let target = tempfile::tempdir().unwrap();
    export(
        &source,
        target.path(),
        ExportFormat::HuggingFace,
        Some(WeightsDType::BF16),
    );
    let back = open(&Import::new(target.path()));
    assert!(
        back.weights
            .tensors
            .values()
            .all(|weight| weight.dtype == DType::BF16)
    );
    let config = std::fs::read_to_string(target.path().join("config.json")).unwrap();
    assert!(config.contains("\"bfloat16\""), "{config}");
    let error = Export {
        architecture: &source.architecture,
        weights: &source.weights,
        processor: &source.processor,
        generation: &source.generation,
        tokenizer: None,
        image_token_id: None,
    }
    .write(
        target.path(),
        ExportFormat::Lavis,
        None,
        &(Arc::new(|_, _| {}) as _),
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("not empty"), "{error}");
}

#[test]
fn larger_images_interpolate_the_positions() {
    let mut import = Import::new(folder("plain"));
    import.image_size = Some(42);
    let checkpoint = open(&import);
    assert_eq!(checkpoint.processor.size, [42, 42]);
    let model = checkpoint
        .load(&Device::default(), Precision::F32, None)
        .unwrap()
        .model;
    let images = Tensor::ones([1, 3, 42, 42], &Device::default());
    assert_eq!(
        model.vision_backbone.get().forward(images).dims(),
        [1, 37, 24]
    );
}

fn clip() -> VisionConfig {
    VisionConfig {
        hidden_size: 24,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        intermediate_size: 32,
        ..clip_vit_l_14(28)
    }
}

#[test]
fn matches_transformers_clip_from_its_own_files_and_from_openai_names() {
    let device = Device::default();
    let expected = Expected::read("clip");
    let (config, of_folder) = load_vision(&folder("clip"), None, Precision::F32, &device).unwrap();
    assert_eq!(config, clip());
    let (_, of_file) = load_vision(
        &folder("openai_clip.pth"),
        Some(&clip()),
        Precision::F32,
        &device,
    )
    .unwrap();
    for module in [of_folder, of_file] {
        let hidden = module.forward(expected.tensor("images", &device));
        expected.check("hidden", hidden, TOLERANCE);
    }
    // BLIP-2 leaves CLIP's last block out.
    let fewer = VisionConfig {
        num_hidden_layers: 2,
        ..clip()
    };
    assert!(
        load_vision(
            &folder("openai_clip.pth"),
            Some(&fewer),
            Precision::F32,
            &device
        )
        .is_ok()
    );
    let error = load_vision(&folder("openai_clip.pth"), None, Precision::F32, &device).unwrap_err();
    assert!(error.to_string().contains("num_attention_heads"), "{error}");
}

#[test]
fn eva_alone_gives_what_it_gives_inside_a_whole_model() {
    let device = Device::default();
    let (config, whole) = load_vision(&folder("plain"), None, Precision::F32, &device).unwrap();
    let (said, alone) =
        load_vision(&folder("eva.pth"), Some(&config), Precision::F32, &device).unwrap();
    assert_eq!(said, config);
    let images = Expected::read("plain").tensor::<4>("images", &device);
    let expected = whole.forward(images.clone()).into_data();
    let actual = alone.forward(images).into_data();
    // EVA has no bias on the keys. It does nothing, but for rounding.
    actual.assert_approx_eq::<f32>(&expected, Tolerance::rel_abs(1e-5, 1e-4));
}

#[test]
fn matches_transformers_opt_alone() {
    let device = Device::default();
    let expected = Expected::read("opt");
    let (config, lm) = load_opt(&folder("opt"), None, Precision::F32, &device).unwrap();
    assert!(!config.do_layer_norm_before && config.word_embed_proj_dim == 16);
    let ids = expected.tensor::<2>("ids", &device).int();
    let mask = Tensor::<2, Int>::ones(ids.dims(), &device);
    let logits = lm.logits(lm.forward(lm.embed(ids), mask, None));
    expected.check("logits", logits, TOLERANCE);
}

#[test]
fn towers_are_found_inside_a_whole_model() {
    let device = Device::default();
    for (path, base_config) in [("plain", None), ("lavis_full.pth", Some("plain"))] {
        let architecture = open(&Import::new(folder(base_config.unwrap_or(path)))).architecture;
        let said = base_config.map(|_| &architecture.vision);
        let (config, _) = load_vision(&folder(path), said, Precision::F32, &device).unwrap();
        assert_eq!(config, architecture.vision);
        let said = base_config.map(|_| &architecture.text);
        let (config, _) = load_opt(&folder(path), said, Precision::F32, &device).unwrap();
        assert_eq!(config, architecture.text);
    }
    let error = load_opt(&folder("clip"), None, Precision::F32, &device)
        .unwrap_err()
        .to_string();
    assert!(error.contains("holds no OPT language model"), "{error}");
}
