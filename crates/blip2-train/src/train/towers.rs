//! The runs that make small frozen towers.

use std::path::Path;
use std::sync::Arc;

use blip2::checkpoint::{WeightsDType, save_opt, save_vision};
use blip2_data::annotations::instances::Instances;
use blip2_data::loader::{BatchSource, LoaderOptions, PrefetchLoader};
use blip2_data::sample::Sample;
use blip2_data::skips::SkipLog;
use blip2_data::tokenizer::{CaptionTokenizer, train_bpe};
use blip2_lm::OptConfig;
use burn::tensor::Device;

use super::{Start, Training, fit};
use crate::RunError;
use crate::data::{captions_sha256, read_split};
use crate::devices::Devices;
use crate::hash::file_sha256;
use crate::recipe::Recipe;
use crate::run::checkpoint::State;
use crate::run::{StopSignal, checkpoint};
use crate::tasks::{DocumentSource, LanguageTask, PatchSource, PatchTask, Task};

/// Shipped towers are stored in half precision; users compute in f32 from there.
const EXPORT_DTYPE: WeightsDType = WeightsDType::F16;

pub(super) fn language_model(
    start: Start,
    devices: &Devices,
    stop: &StopSignal,
) -> Result<(), RunError> {
    let device = devices.main();
    let recipe = &start.recipe;
    let Some(config) = &recipe.language_model else {
        return Err(RunError::Usage("the recipe has no language_model".into()));
    };
    let skips = SkipLog::new(recipe.data.on_error);
    let train = read_split(recipe.data.train_split()?, &skips, true)?;
    let valid = read_split(&recipe.data.val, &skips, true)?;
    let state = start.state([
        ("train captions", captions_sha256(&train)),
        ("val captions", captions_sha256(&valid)),
    ])?;
    let captions = |samples: &[Sample]| -> Vec<Vec<String>> {
        let captions = samples.iter().map(|sample| sample.captions.clone());
        captions.collect()
    };
    let (train, valid) = (captions(&train), captions(&valid));
    if config.max_length > config.architecture.max_position_embeddings {
        return Err(RunError::Usage(
            "language_model.max_length is more than its max_position_embeddings".into(),
        ));
    }
    let texts = train.iter().flatten().map(String::as_str);
    let tokenizer = train_bpe(texts, config.tokenizer_vocab_size)?;
    let architecture = with_token_ids(&config.architecture, &tokenizer)?;
    eprintln!("tokenizer: {} tokens", tokenizer.vocab_size());

    let documents = |images: &[Vec<String>]| {
        DocumentSource::new(images, &tokenizer, config.max_length, recipe.seed)
    };
    let (train, valid) = (documents(&train)?, documents(&valid)?);
    let autodiff = device.clone().autodiff();
    let task = LanguageTask {
        model: architecture
            .init(&autodiff)
            .map_err(blip2::Blip2Error::from)?,
    };
    let loaders = loaders(recipe, train, valid, device);
    let task = train_alone(&start, task, loaders, state, devices, stop)?;
    save_opt(&architecture, &task.model, &config.export, EXPORT_DTYPE)?;
    tokenizer.save(&config.export)?;
    done(&start, &config.export);
    Ok(())
}

pub(super) fn patch_classification(
    start: Start,
    devices: &Devices,
    stop: &StopSignal,
) -> Result<(), RunError> {
    let device = devices.main();
    let recipe = &start.recipe;
    let Some(config) = &recipe.patch_classification else {
        return Err(RunError::Usage(
            "the recipe has no patch_classification".into(),
        ));
    };
    let skips = SkipLog::new(recipe.data.on_error);
    let train = Instances::read(&config.train_instances, &recipe.data.train_split()?.images)?;
    let valid = Instances::read(&config.val_instances, &recipe.data.val.images)?;
    if train.categories != valid.categories {
        return Err(RunError::Usage(format!(
            "{} and {} have different categories",
            config.train_instances.display(),
            config.val_instances.display()
        )));
    }
    let hash = |path: &Path| file_sha256(path).map_err(RunError::io(path));
    let state = start.state([
        ("train instances", hash(&config.train_instances)?),
        ("val instances", hash(&config.val_instances)?),
    ])?;
    let categories = train.categories.len();
    let grid = config.architecture.image_size / config.architecture.patch_size.max(1);
    let processor = config.data_preprocessor.init()?;
    let source = |instances| {
        PatchSource::new(
            instances,
            processor.clone(),
            grid,
            config.background_weight as f32,
            skips.clone(),
        )
    };
    let autodiff = device.clone().autodiff();
    let encoder = config
        .architecture
        .init(&autodiff)
        .map_err(blip2::Blip2Error::from)?;
    let task = PatchTask::new(encoder, categories, &autodiff);
    let loaders = loaders(recipe, source(train), source(valid), device);
    let task = train_alone(&start, task, loaders, state, devices, stop)?;
    save_vision(
        &config.architecture,
        &task.model,
        &config.export,
        EXPORT_DTYPE,
    )?;
    done(&start, &config.export);
    Ok(())
}

/// The special ids come from the tokenizer, so that the two can't disagree.
fn with_token_ids(
    architecture: &OptConfig,
    tokenizer: &CaptionTokenizer,
) -> Result<OptConfig, RunError> {
    if architecture.vocab_size < tokenizer.vocab_size() {
        return Err(RunError::Usage(format!(
            "language_model.architecture.vocab_size is {}, but the tokenizer has {} tokens",
            architecture.vocab_size,
            tokenizer.vocab_size()
        )));
    }
    Ok(OptConfig {
        pad_token_id: tokenizer.pad_id(),
        bos_token_id: tokenizer.bos_id(),
        eos_token_id: tokenizer.eos_id(),
        ..architecture.clone()
    })
}

/// Trains `task`; returns it with its best weights.
fn train_alone<T, S, V>(
    start: &Start,
    task: T,
    (train, valid): (PrefetchLoader<S>, PrefetchLoader<V>),
    state: State,
    devices: &Devices,
    stop: &StopSignal,
) -> Result<T, RunError>
where
    T: Task,
    S: BatchSource<Batch = T::Batch>,
    V: BatchSource<Batch = T::Batch>,
{
    let training = Training {
        task: task.clone(),
        train,
        valid,
        watch: None,
        state,
    };
    fit(start, training, devices, stop)?;
    checkpoint::best(&start.folder)?.load_into(task)
}

fn loaders<S, V>(
    recipe: &Recipe,
    train: S,
    valid: V,
    device: &Device,
) -> (PrefetchLoader<S>, PrefetchLoader<V>)
where
    S: BatchSource,
    V: BatchSource,
{
    let options = |shuffle, drop_last| LoaderOptions {
        batch_size: recipe.train.batch_size,
        num_workers: recipe.data.num_workers,
        shuffle,
        drop_last,
    };
    let shuffled = options(Some(recipe.seed), recipe.train.drop_last);
    (
        PrefetchLoader::new(Arc::new(train), shuffled, device),
        PrefetchLoader::new(Arc::new(valid), options(None, false), device),
    )
}

fn done(start: &Start, export: &Path) {
    eprintln!("tower: {}", export.display());
    println!("{}", start.folder.path().display());
}
