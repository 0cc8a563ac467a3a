//! Writes what `tests/reference/curve.py` trains on: `curve_inputs FOLDER`.
//!
//! `FOLDER/model` holds the weights before the first step in the Hugging Face layout, `FOLDER/batches`
//! the pixels of every batch of the training, in order, and `FOLDER/texts.json` their captions and
//! the learning rate of every step.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use blip2_data::ImageInput;
use blip2_data::images::PixelSource;
use blip2_data::loader::Position;
use blip2_data::skips::SkipLog;
use blip2_tests::{CURVE, Experiment, expect_code};
use blip2_train::data::{clean_captions, read_split, train_loader};
use blip2_train::recipe_file;
use blip2_train::schedule::Schedule;
use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(
        std::env::args()
            .nth(1)
            .ok_or("usage: curve_inputs FOLDER")?,
    );
    fs::create_dir_all(out.join("batches"))?;
    let experiment = Experiment::new();
    let (twin, settings) = CURVE;
    let config = experiment.twin(twin);

    // A rate of 0 leaves the first weights.
    let still = "--set schedule.lr=0.0 --set schedule.warmup_lr=0.0 --set train.epochs=1";
    let run = format!("train --config {config} --out still {settings} {still}");
    expect_code(&experiment.blip2(&run), 0);
    let model = std::path::absolute(out.join("model"))?;
    let convert = format!(
        "convert --from still --to {} --format huggingface",
        model.display()
    );
    expect_code(&experiment.blip2(&convert), 0);

    let set: Vec<String> = settings
        .split("--set ")
        .map(str::trim)
        .filter(|set| !set.is_empty())
        .map(String::from)
        .collect();
    let recipe = recipe_file::read(&experiment.path(&config), &set)?;
    let skips = SkipLog::new(recipe.data.on_error);
    let samples = read_split(recipe.data.train_split()?, &skips, true)?;
    let samples = clean_captions(samples, recipe.data.caption_cleaning.as_ref(), &skips)?.learned;
    let model = recipe.model.as_ref().ok_or("a captioner")?;
    let augmentation = recipe.data.augmentation.as_ref().ok_or("an augmentation")?;
    let images = PixelSource::new(samples.clone(), model.data_preprocessor.init()?, skips)
        .with_augmentation(augmentation.init()?, recipe.seed);
    let loader = train_loader(&recipe, samples, Arc::new(images), &Device::default());

    let mut texts = Vec::new();
    for epoch in 1..=recipe.train.epochs {
        loader.seek(Position { epoch, batch: 0 });
        for batch in loader.iter() {
            let batch = batch?;
            let ImageInput::Pixels(images) = batch.images else {
                return Err("pixels are read".into());
            };
            let shape = images.dims().to_vec();
            let data = images.into_data();
            let view = TensorView::new(Dtype::F32, shape, data.as_bytes())?;
            let file = out.join(format!("batches/{:03}.safetensors", texts.len()));
            safetensors::serialize_to_file(BTreeMap::from([("images", view)]), None, &file)?;
            let captions: Vec<String> = batch
                .samples
                .into_iter()
                .filter_map(|sample| sample.text)
                .collect();
            texts.push(captions);
        }
    }
    let steps = loader.num_batches() / recipe.train.accumulation;
    let schedule = Schedule::new(&recipe.schedule, steps, recipe.train.epochs, 0);
    let rates: Vec<f64> = (0..steps * recipe.train.epochs)
        .map(|step| schedule.at(step))
        .collect();
    let content = json!({
        "captions": texts,
        "lr": rates,
        "accumulation": recipe.train.accumulation,
        "betas": recipe.optimizer.betas,
        "eps": recipe.optimizer.eps,
        "weight_decay": recipe.optimizer.weight_decay,
        "prompt": model.prompt,
        "max_txt_len": model.max_txt_len,
        "ln_vision_eps": model.ln_vision_eps,
    });
    fs::write(out.join("texts.json"), content.to_string())?;
    Ok(())
}
