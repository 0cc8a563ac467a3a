//! `blip2 evaluate --task retrieval`.

use std::path::Path;
use std::sync::Arc;

use blip2_data::images::{ImageSource, PixelSource};
use blip2_data::sample::Sample;
use blip2_data::skips::SkipLog;
use burn::tensor::Device;

use super::model::TowerDType;
use super::{bar, json, result_line, stage1};
use crate::RunError;
use crate::evaluate::EvalSettings;
use crate::report::recall_line;
use crate::retrieval::Retrieval;
use crate::run::StopSignal;

/// What the command line says.
pub(super) struct Options<'a> {
    pub model: &'a Path,
    pub gaps: &'a stage1::Gaps,
    pub dtype: TowerDType,
    pub rerank: Option<usize>,
    pub batch_size: Option<u16>,
    pub json: bool,
}

/// Looks for the images and captions of `samples` among each other.
pub(super) fn run(
    options: &Options<'_>,
    samples: &Arc<Vec<Sample>>,
    skips: SkipLog,
    device: &Device,
) -> Result<(), RunError> {
    let loaded = stage1::load(
        options.model,
        &options.gaps.base,
        options.gaps.tokenizer.as_deref(),
        options.dtype,
        device,
    )?;
    let images: Arc<dyn ImageSource> =
        Arc::new(PixelSource::new(samples.clone(), loaded.processor, skips));
    let settings = EvalSettings {
        batch_size: options.batch_size.map_or(loaded.batch_size, usize::from),
        num_workers: loaded.num_workers,
        device: device.clone(),
        stop: StopSignal::install()?,
    };
    let retrieval = Retrieval {
        model: &loaded.model,
        samples,
        images: &images,
        rerank: options.rerank.unwrap_or(loaded.rerank),
        settings: &settings,
    };
    let progress = bar("features");
    let found = retrieval.run(&|what, done, total| {
        progress.set_message(what.to_string());
        progress.set_length(total as u64);
        progress.set_position(done as u64);
    })?;
    progress.finish_and_clear();
    if options.json {
        return result_line(&json(&found)?);
    }
    result_line(&format!("contrast: {} (×100)", recall_line(&found.itc)))?;
    result_line(&format!("matching: {} (×100)", recall_line(&found.itm)))
}
