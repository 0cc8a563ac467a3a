//! METEOR's data: its jar and its table of paraphrases, where the user has them.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use super::inflate::Inflate;
use super::normalize::{Prefixes, read_prefixes};
use super::paraphrases::Paraphrases;
use super::synonyms::Synonyms;
use crate::EvalError;

const JAR: &str = "meteor-1.5.jar";
/// Beside the jar.
const PARAPHRASES: &str = "data/paraphrase-en.gz";
/// Where pycocoevalcap, which brings METEOR, is below the folder of an installed Python.
const INSTALLED: [&str; 2] = [
    "site-packages/pycocoevalcap/meteor",
    "dist-packages/pycocoevalcap/meteor",
];

/// What METEOR 1.5 knows of English: synonyms (WordNet), paraphrases, function words,
/// abbreviations.
///
/// The data are others' work and no part of this crate: they are read from METEOR's own files,
/// which an installed pycocoevalcap has as well (`pip install pycocoevalcap`).
pub struct MeteorData {
    pub(super) synonyms: Synonyms,
    pub(super) function_words: HashSet<String>,
    pub(super) prefixes: Prefixes,
    table: PathBuf,
}

impl fmt::Debug for MeteorData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeteorData")
    }
}

impl MeteorData {
    /// Reads the data in `path`: the folder with `meteor-1.5.jar` and `data/paraphrase-en.gz`
    /// (METEOR's release, or `pycocoevalcap/meteor`), or the jar itself.
    ///
    /// # Errors
    ///
    /// If a file is not there or is damaged; it is named.
    pub fn open(path: &Path) -> Result<Self, EvalError> {
        let jar = if path.is_dir() {
            path.join(JAR)
        } else {
            path.to_path_buf()
        };
        let table = jar.parent().unwrap_or(Path::new("")).join(PARAPHRASES);
        if !table.is_file() {
            return Err(lacks(&table, "is not there"));
        }
        let resources = Resources::read(&jar)?;
        Ok(Self {
            synonyms: resources.synonyms,
            function_words: resources.function_words,
            prefixes: resources.prefixes,
            table,
        })
    }

    /// The paraphrases that matter to references of `known` words.
    pub(super) fn paraphrases<'a>(
        &self,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Result<Paraphrases, EvalError> {
        let failed = |error: std::io::Error| lacks(&self.table, &error.to_string());
        let file = File::open(&self.table).map_err(failed)?;
        Paraphrases::read(Inflate::new(file), known).map_err(failed)
    }

    /// The folder of an installed pycocoevalcap's METEOR: of the active virtual or conda
    /// environment, the user's packages, the system's.
    pub fn find() -> Option<PathBuf> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let roots = [
            variable("VIRTUAL_ENV"),
            variable("CONDA_PREFIX"),
            std::env::home_dir().map(|home| home.join(".local")),
            Some("/usr/local".into()),
            Some("/usr".into()),
        ];
        roots.into_iter().flatten().find_map(|root| {
            let versions = std::fs::read_dir(root.join("lib")).ok()?;
            let mut versions: Vec<PathBuf> = versions
                .filter_map(|entry| Some(entry.ok()?.path()))
                .collect();
            versions.sort();
            let pythons = versions.iter().rev().filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("python3"))
            });
            let mut folders =
                pythons.flat_map(|python| INSTALLED.map(|installed| python.join(installed)));
            folders.find(|folder| folder.join(JAR).is_file() && folder.join(PARAPHRASES).is_file())
        })
    }
}

/// What the jar holds.
struct Resources {
    synonyms: Synonyms,
    function_words: HashSet<String>,
    prefixes: Prefixes,
}

impl Resources {
    fn read(path: &Path) -> Result<Self, EvalError> {
        let file = File::open(path).map_err(|error| lacks(path, &error.to_string()))?;
        let broken = |reason: String| lacks(path, &reason);
        let mut jar =
            ZipArchive::new(BufReader::new(file)).map_err(|error| broken(error.to_string()))?;
        let mut text = |name: &str| -> Result<String, EvalError> {
            let mut text = String::new();
            let mut entry = jar
                .by_name(name)
                .map_err(|error| broken(format!("{name}: {error}")))?;
            entry
                .read_to_string(&mut text)
                .map_err(|error| broken(format!("{name}: {error}")))?;
            Ok(text)
        };
        let (synsets, exceptions) = (
            text("synonym/english.synsets")?,
            text("synonym/english.exceptions")?,
        );
        let synonyms = Synonyms::read(&synsets, &exceptions).map_err(|(what, line)| {
            broken(format!("synonym/english.{what}: line {line} is wrong"))
        })?;
        Ok(Self {
            synonyms,
            function_words: text("function/english.words")?
                .lines()
                .map(str::to_string)
                .collect(),
            prefixes: read_prefixes(&text("nonbreaking/english.prefixes")?),
        })
    }
}

fn lacks(path: &Path, reason: &str) -> EvalError {
    EvalError::Unavailable {
        metric: "METEOR",
        reason: format!("{}: {reason}", path.display()),
    }
}
