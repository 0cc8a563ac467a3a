//! File names that stay inside the image folder.

use std::path::{Component, Path, PathBuf};

/// The path of `file_name` in the folder `images`, whose canonical path is `root`.
///
/// # Errors
///
/// Why it can't be used: it climbs out of the folder (by `..`, by an absolute path or by a
/// symbolic link), or there is no such file.
pub fn resolve(images: &Path, root: &Path, file_name: &str) -> Result<PathBuf, String> {
    let relative = Path::new(file_name);
    let inside = file_name.split(['/', '\\']).all(|part| part != "..")
        && relative
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside || relative.components().next().is_none() {
        return Err(format!(
            "the file name climbs out of the image folder {}",
            images.display()
        ));
    }
    let path = images.join(relative);
    let canonical = path
        .canonicalize()
        .map_err(|error| format!("the image {} can't be opened: {error}", path.display()))?;
    if !canonical.starts_with(root) {
        return Err(format!(
            "the image is a link that leads out of the image folder {}",
            images.display()
        ));
    }
    if !canonical.is_file() {
        return Err(format!("the image {} is no file", path.display()));
    }
    Ok(path)
}
