//! Which scores are computed, and with what of others' data.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blip2_eval::{Captions, DocumentFrequencies, MeteorData, Metric, Scorer, Spice};

use crate::RunError;

/// What is computed where nothing else is asked for; METEOR only if its data are there.
const DEFAULT: [Metric; 4] = [Metric::Bleu, Metric::Meteor, Metric::RougeL, Metric::Cider];

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Comma-separated: Bleu, METEOR, ROUGE_L, CIDEr, CIDErD, SPICE.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    metrics: Vec<Metric>,
    /// The folder with meteor-1.5.jar and data/paraphrase-en.gz; without it an installed pycocoevalcap
    /// is looked for.
    #[arg(long, value_name = "DIR")]
    meteor_data: Option<PathBuf>,
    /// SPICE's program, spice-1.0.jar with CoreNLP in lib/ beside it; needs Java.
    #[arg(long, value_name = "FILE")]
    spice_jar: Option<PathBuf>,
    /// Document frequencies for CIDErD: a pickle as of its authors' code, or JSON.
    #[arg(long, value_name = "FILE")]
    document_frequencies: Option<PathBuf>,
}

impl Args {
    /// A scorer with everything that is asked for, and what to compute with it.
    pub fn scorer(&self, references: &Captions) -> Result<(Scorer, Vec<Metric>), RunError> {
        let mut scorer = Scorer::new(references)?;
        let mut metrics = self.metrics.clone();
        let asked = !metrics.is_empty();
        if !asked {
            metrics.extend(DEFAULT);
            metrics.extend(self.spice_jar.is_some().then_some(Metric::Spice));
            metrics.extend(
                self.document_frequencies
                    .is_some()
                    .then_some(Metric::CiderD),
            );
        }
        if metrics.contains(&Metric::Meteor) {
            match self.meteor_data.clone().or_else(MeteorData::find) {
                Some(folder) => {
                    scorer = scorer.with_meteor(Arc::new(MeteorData::open(&folder)?))?;
                }
                None if asked => return Err(RunError::Usage(NO_METEOR.into())),
                None => {
                    eprintln!("METEOR is left out: {NO_METEOR}");
                    metrics.retain(|metric| *metric != Metric::Meteor);
                }
            }
        }
        if metrics.contains(&Metric::Spice) {
            let jar = self.spice_jar.as_deref().unwrap_or(Path::new(SPICE_JAR));
            scorer = scorer.with_spice(Spice::open(jar)?);
        }
        if let Some(file) = &self.document_frequencies {
            scorer = scorer.with_document_frequencies(&DocumentFrequencies::read(file)?);
        }
        Ok((scorer, metrics))
    }
}

/// Its name; looked for in the current folder if nothing else is said.
const SPICE_JAR: &str = "spice-1.0.jar";

const NO_METEOR: &str = "its data (meteor-1.5.jar, data/paraphrase-en.gz) are not there; they come \
                         with pycocoevalcap: name its folder `meteor` with --meteor-data";
