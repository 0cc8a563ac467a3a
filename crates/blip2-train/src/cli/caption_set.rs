//! `blip2 caption --images`: a large set of images, in parts, to files that a later run goes on with.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use blip2_data::DataError;
use blip2_data::annotations::{OnError, Skipped};
use blip2_data::collection::{Collection, Part};
use blip2_data::skips::SkipLog;
use indicatif::ProgressBar;
use serde::Serialize;

use super::bar;
use crate::RunError;
use crate::captioning::{
    CaptionedImage, Captioner, Journal, OutputFiles, Progress, Settings, Sink,
};
use crate::run::StopSignal;

/// In a log, a line of progress in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Many images: a folder, a list (.jsonl with `image` and perhaps `prompt`), or tar shards
    /// (`shard-{000..099}.tar`).
    #[arg(long, value_name = "SOURCE", conflicts_with = "image")]
    images: Option<PathBuf>,
    /// With a list: the folder that its paths are relative to; default: its own.
    #[arg(long, value_name = "DIR", conflicts_with = "image")]
    image_root: Option<PathBuf>,
    /// With --images: the part that this task captions, from 0/N to N-1/N.
    #[arg(long, value_name = "I/N", conflicts_with = "image")]
    shard: Option<String>,
    /// With --images: a .jsonl or .parquet file for captions, tokens and scores; if it is there, the
    /// run goes on with it.
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    out: Option<PathBuf>,
    /// With --images: whether an image that can't be read ends the run or is left out; default: fail.
    #[arg(long, value_enum, value_name = "WHAT", conflicts_with = "image")]
    on_error: Option<AtError>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum AtError {
    /// The first one ends the run.
    Fail,
    /// It is left out, counted and listed.
    Skip,
}

/// The part of the flags that captions depend on.
#[derive(Debug, Serialize)]
pub(super) struct Flags<'a> {
    images: &'a Path,
    image_root: Option<&'a Path>,
    shard: String,
}

/// Images to caption, and where the captions go.
pub(super) struct CaptionSet {
    collection: Arc<Collection>,
    output: Output,
}

enum Output {
    Journal(Journal),
    Stdout,
    /// The Parquet file is there.
    Finished(PathBuf),
}

impl Args {
    /// What `--images` and the flags with it name; none without it. `settings` makes what else
    /// captions depend on.
    pub fn open<'a, S: Serialize>(
        &'a self,
        settings: impl FnOnce(Flags<'a>) -> S,
    ) -> Result<Option<CaptionSet>, RunError> {
        let Some(images) = &self.images else {
            return Ok(None);
        };
        let part = match self.shard.as_deref().map(str::parse::<Part>) {
            None => Part::WHOLE,
            Some(part) => part.map_err(usage)?,
        };
        let files = self.out.as_deref().map(OutputFiles::of).transpose()?;
        let on_error = match self.on_error {
            Some(AtError::Skip) => OnError::Skip,
            Some(AtError::Fail) | None => OnError::Fail,
        };
        let skips = SkipLog::new(on_error);
        let root = self.image_root.as_deref();
        let collection = Collection::open(images, root, part, skips).map_err(usage)?;
        let flags = Flags {
            images,
            image_root: root,
            shard: part.to_string(),
        };
        let output = match files {
            None => Output::Stdout,
            Some(files) => {
                let result = files.result().to_path_buf();
                let settings = Settings::of(&settings(flags))?;
                match Journal::open(files, &settings, &collection)? {
                    Some(journal) => Output::Journal(journal),
                    None => Output::Finished(result),
                }
            }
        };
        Ok(Some(CaptionSet {
            collection: Arc::new(collection),
            output,
        }))
    }
}

/// A flag is no field of a config.
fn usage(error: DataError) -> RunError {
    match error {
        DataError::Config { field, reason } => RunError::Usage(format!("{field}: {reason}")),
        error => error.into(),
    }
}

impl CaptionSet {
    /// Images left to caption; none needs no model.
    pub fn pending(&self) -> usize {
        match &self.output {
            Output::Journal(journal) => journal.count(Progress::Pending),
            Output::Stdout => self.collection.items().len(),
            Output::Finished(_) => 0,
        }
    }

    /// Captions what is left. `print` writes to stdout where there is no file.
    pub fn run(
        &mut self,
        captioner: &Captioner,
        mut print: impl FnMut(CaptionedImage) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let stop = StopSignal::install()?;
        let mut meter = Meter::new(self.pending());
        let mut stdout = Stdout(&mut print);
        let sink: &mut dyn Sink = match &mut self.output {
            Output::Journal(journal) => journal,
            Output::Stdout => &mut stdout,
            Output::Finished(_) => return Ok(()),
        };
        let result = captioner.run(&self.collection, sink, &stop, &mut |images| {
            meter.add(images);
        });
        meter.finish();
        if let (Err(RunError::Interrupted { .. }), Output::Journal(journal)) =
            (&result, &self.output)
        {
            let left = journal.count(Progress::Pending);
            eprintln!("{left} images are left; the same command goes on with them");
        }
        result
    }

    /// Completes the files and says what there is.
    pub fn finish(self) -> Result<(), RunError> {
        match self.output {
            Output::Journal(mut journal) => {
                // Without an image, nobody has noted them yet.
                let problems = self.collection.problems().iter();
                journal.skip(problems.map(|problem| (None, problem.clone())).collect())?;
                let captioned = journal.count(Progress::Captioned);
                let files = journal.files().clone();
                let result = files.result().display().to_string();
                eprintln!("{result}: captions of {captioned} images");
                let skipped = journal.skipped();
                if skipped > 0 {
                    let list = files.skipped.display();
                    eprintln!("skipped {skipped}; {list} says why, delete it to try them again");
                }
                journal.finish()
            }
            Output::Stdout => {
                match self.collection.skips().count() {
                    0 => {}
                    skipped => eprintln!("skipped {skipped}"),
                }
                Ok(())
            }
            Output::Finished(table) => {
                eprintln!("{}: is finished", table.display());
                Ok(())
            }
        }
    }
}

/// Prints each image's captions; knows nothing of earlier runs.
struct Stdout<'a>(&'a mut dyn FnMut(CaptionedImage) -> Result<(), RunError>);

impl Sink for Stdout<'_> {
    fn progress(&self, _item: usize) -> Progress {
        Progress::Pending
    }

    fn write(&mut self, captioned: Vec<(usize, CaptionedImage)>) -> Result<(), RunError> {
        captioned
            .into_iter()
            .try_for_each(|(_, line)| (self.0)(line))
    }

    fn skip(&mut self, _skipped: Vec<(Option<usize>, Skipped)>) -> Result<(), RunError> {
        Ok(())
    }
}

/// Progress on stderr: a bar on a terminal, a line now and then in a log.
struct Meter {
    bar: ProgressBar,
    begun: Instant,
    last_line: Instant,
    done: usize,
    total: usize,
}

impl Meter {
    fn new(total: usize) -> Self {
        let bar = bar("images");
        bar.set_length(total as u64);
        let now = Instant::now();
        Self {
            bar,
            begun: now,
            last_line: now,
            done: 0,
            total,
        }
    }

    fn add(&mut self, images: usize) {
        self.done += images;
        self.bar.set_position(self.done as u64);
        if !std::io::stderr().is_terminal() && self.last_line.elapsed() >= LOG_INTERVAL {
            self.last_line = Instant::now();
            self.line();
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
        self.line();
    }

    fn line(&self) {
        let rate = self.done as f64 / self.begun.elapsed().as_secs_f64().max(1e-9);
        eprintln!("{}/{} images, {rate:.1} images/s", self.done, self.total);
    }
}
