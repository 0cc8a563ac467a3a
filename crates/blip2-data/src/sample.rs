//! An image with its captions.

use std::path::PathBuf;

/// One annotated image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The id in the annotation file; a number becomes its decimal text.
    pub image_id: String,
    /// The file name as the annotation file has it.
    pub file_name: String,
    /// Where the file lies.
    pub path: PathBuf,
    /// Its captions, trimmed; none is empty.
    pub captions: Vec<String>,
}
