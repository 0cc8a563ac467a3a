//! Broken and hostile checkpoints: typed errors that name file, key, expected and found.

mod fixture;

use std::fs;
use std::path::Path;

use blip2::Blip2Error;
use blip2::checkpoint::{Import, Precision};
use burn::tensor::Device;
use fixture::folder;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A copy of a model that a test may break.
fn copy(model: &str) -> TempDir {
    let target = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder(model)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, target.path().join(path.file_name().unwrap())).unwrap();
    }
    target
}

/// The error of loading, which must name each of `expected`.
fn error(path: &Path, expected: &[&str]) -> Blip2Error {
    let error = Import::new(path)
        .open()
        .and_then(|checkpoint| checkpoint.load(&Device::default(), Precision::Stored, None))
        .map(|_| ())
        .expect_err("a broken model is not loaded");
    let text = error.to_string();
    for expected in expected {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    error
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// Writes the model's weights anew after `edit` of the header and the data.
fn edit_weights(path: &Path, edit: impl FnOnce(&mut Value, &mut Vec<u8>)) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut data = bytes[8 + length..].to_vec();
    edit(&mut header, &mut data);
    let header = header.to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    fs::write(path, file).unwrap();
}

#[test]
fn truncated_and_corrupt_safetensors() {
    let model = copy("plain");
    let path = model.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in [0, 5, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = error(model.path(), &["model.safetensors"]);
        assert!(matches!(error, Blip2Error::Format { .. }), "{error}");
    }
    let mut flipped = whole.clone();
    flipped[10] = b'!';
    fs::write(&path, &flipped).unwrap();
    error(model.path(), &["model.safetensors", "corrupt header"]);
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, &huge).unwrap();
    error(model.path(), &["truncated"]);
}

#[test]
fn indices_that_lie() {
    let model = copy("sharded");
    let index = model.path().join("model.safetensors.index.json");
    let shard = model.path().join("model-00002-of-00002.safetensors");
    let hidden = model.path().join("elsewhere");
    fs::rename(&shard, &hidden).unwrap();
    error(
        model.path(),
        &[
            "index.json",
            "model-00002-of-00002.safetensors",
            "not there",
        ],
    );
    fs::rename(&hidden, &shard).unwrap();
    edit_json(&index, |index| {
        index["weight_map"]["vision_model.new"] = "model-00001-of-00002.safetensors".into();
    });
    error(model.path(), &["index.json", "vision_model.new"]);
    edit_json(&index, |index| {
        index["weight_map"]["query_tokens"] = "../plain/x.safetensors".into()
    });
    error(model.path(), &["not in its folder"]);
    fs::write(&index, "{}").unwrap();
    error(model.path(), &["no index of shards"]);
}

#[test]
fn wrong_shapes_name_key_expected_and_found() {
    let model = copy("plain");
    edit_json(&model.path().join("config.json"), |config| {
        config["text_config"]["ffn_dim"] = 48.into();
    });
    let key = "language_model.model.decoder.layers.0.fc1.bias";
    let error = error(model.path(), &["model.safetensors", key, "[48]", "[44]"]);
    assert!(matches!(error, Blip2Error::Shape { .. }), "{error}");
}

#[test]
fn wrong_element_types_and_missing_and_unexpected_keys() {
    let model = copy("plain");
    let path = model.path().join("model.safetensors");
    edit_weights(&path, |header, _| {
        header["query_tokens"]["dtype"] = "I32".into()
    });
    let typed = error(
        model.path(),
        &["model.safetensors", "`query_tokens`", "F32", "I32"],
    );
    assert!(matches!(typed, Blip2Error::DType { .. }), "{typed}");

    let model = copy("plain");
    let path = model.path().join("model.safetensors");
    edit_weights(&path, |header, _| {
        let header = header.as_object_mut().unwrap();
        let tensor = header.remove("language_projection.bias").unwrap();
        header.insert("language_projection.offset".into(), tensor);
    });
    let missing = error(
        model.path(),
        &["missing", "language_projection.bias", "base"],
    );
    assert!(matches!(missing, Blip2Error::Missing { .. }), "{missing}");

    let model = copy("plain");
    edit_json(&model.path().join("config.json"), |config| {
        config["vision_config"]["num_hidden_layers"] = 1.into();
    });
    let key = "vision_model.encoder.layers.1.layer_norm1.weight";
    let unexpected = error(model.path(), &["unexpected", key]);
    assert!(
        matches!(unexpected, Blip2Error::Unexpected { .. }),
        "{unexpected}"
    );
}

#[test]
fn weights_that_are_not_finite() {
    for (model, file, bits) in [
        ("plain", "model.safetensors", &f32::NAN.to_le_bytes()[..]),
        (
            "plain",
            "model.safetensors",
            &f32::NEG_INFINITY.to_le_bytes(),
        ),
        ("bfloat16", "model.safetensors", &0x7fc0u16.to_le_bytes()),
    ] {
        let model = copy(model);
        edit_weights(&model.path().join(file), |header, data| {
            let tensor = &header["language_projection.weight"]["data_offsets"];
            let start = tensor[0].as_u64().unwrap() as usize;
            data[start..start + bits.len()].copy_from_slice(bits);
        });
        let error = error(
            model.path(),
            &["`language_projection.weight`", "1 that are NaN"],
        );
        assert!(
            matches!(error, Blip2Error::NotFinite { count: 1, .. }),
            "{error}"
        );
    }
}

#[test]
fn configs_of_other_models() {
    let model = copy("plain");
    let config = model.path().join("config.json");
    edit_json(&config, |config| config["model_type"] = "blip".into());
    let other = error(
        model.path(),
        &["config.json", "`model_type`", "`blip-2`", "`blip`"],
    );
    assert!(matches!(other, Blip2Error::ModelType { .. }), "{other}");
    edit_json(&config, |config| {
        config["model_type"] = "blip-2".into();
        config["text_config"]["model_type"] = "t5".into();
    });
    error(model.path(), &["`text_config.model_type`", "`opt`", "`t5`"]);
    fs::write(&config, "{\"model_type\":").unwrap();
    error(model.path(), &["config.json", "JSON"]);
}

#[test]
fn tokenizers_of_other_models() {
    let model = copy("plain");
    edit_json(&model.path().join("tokenizer.json"), |tokenizer| {
        tokenizer["model"]["vocab"]["qqq"] = 999.into();
    });
    let error_of = error(model.path(), &["tokenizer.json", "999", "320"]);
    assert!(
        matches!(
            error_of,
            Blip2Error::Vocabulary {
                largest: 999,
                rows: 320,
                ..
            }
        ),
        "{error_of}"
    );
    fs::remove_file(model.path().join("tokenizer.json")).unwrap();
    error(model.path(), &["no tokenizer", "tokenizer.json"]);
}

#[test]
fn no_weights_and_no_checkpoints() {
    let empty = tempfile::tempdir().unwrap();
    error(empty.path(), &["holds no weights", "model.safetensors"]);
    let text = empty.path().join("notes.txt");
    fs::write(&text, "hello").unwrap();
    error(&text, &["notes.txt", "no checkpoint"]);
    error(&empty.path().join("none.pth"), &["none.pth"]);
    let names = empty.path().join("other.safetensors");
    edit_new(&names);
    error(&names, &["no known model", "layer.weight"]);
}

fn edit_new(path: &Path) {
    let header = json!({"layer.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}});
    let header = header.to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend([0; 4]);
    fs::write(path, file).unwrap();
}

/// `pickle.dumps` of an object whose `__reduce__` is a call, protocol 2: GLOBAL, arguments, REDUCE.
fn call(module: &str, function: &str, argument: &str) -> Vec<u8> {
    let mut pickle = vec![0x80, 2];
    pickle.extend(format!("c{module}\n{function}\n").as_bytes());
    pickle.push(b'X');
    pickle.extend((argument.len() as u32).to_le_bytes());
    pickle.extend(argument.as_bytes());
    pickle.extend([0x85, b'R', b'.']);
    pickle
}

#[test]
fn hostile_pickles_are_named_and_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("was-run");
    let argument = format!("touch {}", trace.display());
    for (module, function) in [
        ("os", "system"),
        ("posix", "system"),
        ("subprocess", "getoutput"),
        ("builtins", "eval"),
    ] {
        let path = folder.path().join("model.pth");
        fs::write(&path, call(module, function, &argument)).unwrap();
        let error = error(
            &path,
            &["model.pth", &format!("`{module}.{function}`"), "attack"],
        );
        assert!(matches!(error, Blip2Error::Hostile { .. }), "{error}");
    }
    assert!(!trace.exists());
}

/// The same call beside real weights, in a whole archive as `torch.save` writes it.
#[test]
fn a_hostile_object_beside_weights_is_found() {
    let target = tempfile::tempdir().unwrap();
    let path = target.path().join("model.pth");
    let archive = fs::File::create(&path).unwrap();
    let mut archive = zip::ZipWriter::new(archive);
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    // {"model": {}, "extra": os.system("true")}
    let mut pickle = vec![0x80, 2, b'}', b'('];
    let text = |pickle: &mut Vec<u8>, text: &str| {
        pickle.push(b'X');
        pickle.extend((text.len() as u32).to_le_bytes());
        pickle.extend(text.as_bytes());
    };
    text(&mut pickle, "model");
    pickle.push(b'}');
    text(&mut pickle, "extra");
    let mut inner = call("os", "system", "true");
    pickle.extend(inner.drain(2..inner.len() - 1));
    pickle.extend([b'u', b'.']);
    for (name, contents) in [("data.pkl", &pickle[..]), ("version", b"3\n")] {
        archive
            .start_file(format!("model/{name}"), options)
            .unwrap();
        std::io::Write::write_all(&mut archive, contents).unwrap();
    }
    archive.finish().unwrap();
    let error = error(&path, &["`os.system`"]);
    assert!(matches!(error, Blip2Error::Hostile { .. }), "{error}");
}

#[test]
fn truncated_pickles() {
    let whole = fs::read(folder("lavis_full.pth")).unwrap();
    let target = tempfile::tempdir().unwrap();
    let path = target.path().join("model.pth");
    for length in [0, 3, 1000, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = error(&path, &["model.pth"]);
        assert!(
            matches!(error, Blip2Error::Format { .. }),
            "{length}: {error}"
        );
    }
}
