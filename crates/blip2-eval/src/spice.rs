//! SPICE, by its authors' program.
//!
//! Anderson et al., 2016: the F-score of the tuples (objects, attributes, relations) in the scene
//! graphs of candidate and references. The graphs come from a parser with trained models, so there
//! is nothing to be gained from writing it anew: the original jar is run, as pycocoevalcap runs it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::EvalError;
use crate::formats::read_json;

/// What the jar wants in the folder `lib` beside it; pycocoevalcap fetches these at first use.
const LIBRARIES: [&str; 2] = [
    "stanford-corenlp-3.6.0.jar",
    "stanford-corenlp-3.6.0-models.jar",
];
/// What its models need.
const HEAP: &str = "-Xmx8G";

/// SPICE's program, with everything that it needs.
#[derive(Debug, Clone)]
pub struct Spice {
    jar: PathBuf,
    java: PathBuf,
}

/// An image's tokenized captions, as the program reads them.
#[derive(Serialize)]
pub(crate) struct SpiceImage<'a> {
    pub image_id: &'a str,
    /// The candidate.
    pub test: &'a str,
    /// The references.
    pub refs: &'a [String],
}

#[derive(Deserialize)]
struct Scored {
    image_id: String,
    scores: Categories,
}

#[derive(Deserialize)]
struct Categories {
    #[serde(rename = "All")]
    all: Tuples,
}

#[derive(Deserialize)]
struct Tuples {
    f: f64,
}

impl Spice {
    /// The program in `jar` (`spice-1.0.jar`), run by the `java` of `JAVA_HOME` or of `PATH`.
    ///
    /// # Errors
    ///
    /// If the jar, Stanford's parser or its models (`lib/stanford-corenlp-3.6.0*.jar` beside it) or
    /// Java is not there; the message says which.
    pub fn open(jar: &Path) -> Result<Self, EvalError> {
        let java = match std::env::var_os("JAVA_HOME") {
            Some(home) => Path::new(&home).join("bin/java"),
            None => PathBuf::from("java"),
        };
        Self::with_java(jar, &java)
    }

    /// The same, with a certain `java`.
    ///
    /// # Errors
    ///
    /// As [`Spice::open`].
    pub fn with_java(jar: &Path, java: &Path) -> Result<Self, EvalError> {
        let lacks = |reason: String| EvalError::Unavailable {
            metric: "SPICE",
            reason,
        };
        let jar =
            fs::canonicalize(jar).map_err(|error| lacks(format!("{}: {error}", jar.display())))?;
        let libraries = jar.parent().unwrap_or(Path::new("")).join("lib");
        for library in LIBRARIES {
            if !libraries.join(library).is_file() {
                return Err(lacks(format!(
                    "{} is not there: unpack it from stanford-corenlp-full-2015-12-09.zip \
                     (nlp.stanford.edu/software)",
                    libraries.join(library).display()
                )));
            }
        }
        let mut version = Command::new(java);
        version
            .arg("-version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match version.status() {
            Ok(status) if status.success() => Ok(Self {
                jar,
                java: java.to_path_buf(),
            }),
            Ok(status) => Err(lacks(format!(
                "`{} -version` ends with {status}",
                java.display()
            ))),
            Err(error) => Err(lacks(format!(
                "Java can't be started ({}: {error})",
                java.display()
            ))),
        }
    }

    /// The F-score of every image, by its id.
    pub(crate) fn score(&self, images: &[SpiceImage]) -> Result<BTreeMap<String, f64>, EvalError> {
        let failed = |reason: String| EvalError::Program {
            program: self.jar.clone(),
            reason,
        };
        let folder = tempfile::tempdir().map_err(|error| failed(error.to_string()))?;
        let (input, output) = (
            folder.path().join("in.json"),
            folder.path().join("out.json"),
        );
        let json = serde_json::to_vec(images).map_err(|error| failed(error.to_string()))?;
        fs::write(&input, json).map_err(|error| failed(error.to_string()))?;
        let run = Command::new(&self.java)
            .args([HEAP, "-jar"])
            .arg(&self.jar)
            .arg(&input)
            .arg("-out")
            .arg(&output)
            .args(["-subset", "-silent"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed(error.to_string()))?;
        if !run.status.success() {
            let messages = String::from_utf8_lossy(&run.stderr);
            let last: Vec<&str> = messages.lines().rev().take(3).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            return Err(failed(format!("{}: {}", run.status, last.join(" / "))));
        }
        let results: Vec<Scored> = read_json(&output)?;
        let scores: BTreeMap<String, f64> = results
            .into_iter()
            .map(|result| (result.image_id, result.scores.all.f))
            .collect();
        let lacks = |image: &&SpiceImage| {
            let score = scores.get(image.image_id);
            !score.is_some_and(|score| score.is_finite())
        };
        match images.iter().find(lacks) {
            Some(image) => Err(failed(format!(
                "gave no score of image `{}`",
                image.image_id
            ))),
            None => Ok(scores),
        }
    }
}
