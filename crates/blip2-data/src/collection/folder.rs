//! A folder of images.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::{Item, Listing, Part, Place, is_image_name, tar};
use crate::DataError;

/// Adds the images below `folder` that are in `part`, by relative path; or, where there is none, those
/// of the tars in it.
pub(super) fn list(folder: &Path, part: Part, listing: &mut Listing) -> Result<(), DataError> {
    let (mut images, mut tars) = (Vec::new(), Vec::new());
    let walk = WalkDir::new(folder).follow_links(true);
    for entry in walk {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let path = error.path().unwrap_or(folder).to_path_buf();
                let reason = error.to_string();
                let source = error
                    .into_io_error()
                    .unwrap_or_else(|| std::io::Error::other(reason));
                listing.problem(DataError::Io { path, source })?;
                continue;
            }
        };
        if !entry.file_type().is_file() {
            continue;
        }
        let relative = entry.path().strip_prefix(folder).unwrap_or(entry.path());
        let name = relative.to_string_lossy().replace('\\', "/");
        if is_image_name(&name) {
            images.push((name, entry.into_path()));
        } else if entry.depth() == 1 && name.ends_with(".tar") && !name.starts_with('.') {
            tars.push(entry.into_path());
        }
    }
    if images.is_empty() {
        if tars.is_empty() {
            return Err(DataError::EmptyCollection {
                path: folder.into(),
                reason: "it has no .jpg, .jpeg, .png or .webp file at any depth, and no .tar file",
            });
        }
        tars.sort();
        return tar::list(&tars, part, listing);
    }
    images.sort();
    for (_, (name, path)) in (0..).zip(images).filter(|&(number, _)| part.has(number)) {
        add(name, path, folder, listing)?;
    }
    Ok(())
}

fn add(name: String, path: PathBuf, folder: &Path, listing: &mut Listing) -> Result<(), DataError> {
    let item = Item {
        name,
        prompt: None,
        place: Place::File(path),
    };
    // Names that are no UTF-8 can become equal.
    listing.add(item, folder, "the names in it")
}
