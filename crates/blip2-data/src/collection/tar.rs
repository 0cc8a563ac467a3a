//! Images in tar files. Nothing is unpacked: the headers say where they stand.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::{Item, Listing, Part, Place, is_image_name};
use crate::DataError;
use crate::stream::{self, Shard, TarScan, climbs_out};

/// The tars that a path or pattern names, in its order.
pub(super) fn expand(pattern: &Path) -> Result<Vec<PathBuf>, DataError> {
    let config = |reason: String| DataError::Config {
        field: "--images".into(),
        reason,
    };
    // A file may have a brace in its name.
    let paths = match pattern.is_file() {
        true => vec![pattern.to_path_buf()],
        false => match stream::expand(pattern) {
            Err(DataError::Config { reason, .. }) => return Err(config(reason)),
            paths => paths?,
        },
    };
    let is_tar = |path: &Path| path.extension().is_some_and(|extension| extension == "tar");
    if let Some(other) = paths.iter().find(|path| !is_tar(path)) {
        return Err(config(format!(
            "{} is no .tar file; a folder of images is named without a pattern",
            other.display()
        )));
    }
    let mut seen = HashSet::with_capacity(paths.len());
    match paths.iter().find(|path| !seen.insert(*path)) {
        Some(twice) => Err(config(format!("names {} twice", twice.display()))),
        None => Ok(paths),
    }
}

/// Adds the images of `tars` that are in `part`: several tars are dealt whole, the images of one are
/// dealt one by one.
pub(super) fn list(tars: &[PathBuf], part: Part, listing: &mut Listing) -> Result<(), DataError> {
    let folder = common_folder(tars);
    let (of_tars, of_images) = match tars.len() {
        1 => (Part::WHOLE, part),
        _ => (part, Part::WHOLE),
    };
    let mut images = 0;
    for (_, path) in (0..).zip(tars).filter(|&(number, _)| of_tars.has(number)) {
        let below = path.strip_prefix(&folder).unwrap_or(path);
        let name = below.to_string_lossy().replace('\\', "/");
        images += match Shard::at(path.clone()) {
            Ok(shard) => scan(&Arc::new(shard), &name, of_images, listing)?,
            Err(error) => {
                listing.problem(error)?;
                continue;
            }
        };
    }
    let is_whole = tars.len() == 1 || part == Part::WHOLE;
    if images == 0 && is_whole && listing.problems.is_empty() {
        return Err(DataError::EmptyCollection {
            path: tars.first().unwrap_or(&folder).clone(),
            reason: "it has no .jpg, .jpeg, .png or .webp entry",
        });
    }
    Ok(())
}

/// Adds the images of one tar; says how many it has, those of other parts too.
fn scan(
    shard: &Arc<Shard>,
    tar_name: &str,
    part: Part,
    listing: &mut Listing,
) -> Result<u64, DataError> {
    let file = File::open(&shard.path).map_err(DataError::io(&shard.path))?;
    let problem = |place: String, reason: String| DataError::Shard {
        shard: shard.path.clone(),
        place,
        reason,
    };
    let mut scan = TarScan::new(shard.size);
    let mut images = 0;
    loop {
        let entry = match scan.next(&file) {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(images),
            Err(damage) => {
                let reason = format!("{}; what stands before can be used", damage.reason);
                listing.problem(problem(format!("byte {}", damage.at), reason))?;
                return Ok(images);
            }
        };
        if !is_image_name(&entry.name) {
            continue;
        }
        let is_ours = part.has(images);
        images += 1;
        if !is_ours {
            continue;
        }
        if climbs_out(&entry.name) {
            let reason = "its path climbs out of the tar's folder";
            listing.problem(problem(entry.name, reason.into()))?;
            continue;
        }
        let entry_name = entry.name.strip_prefix("./").unwrap_or(&entry.name);
        let item = Item {
            name: format!("{tar_name}/{entry_name}"),
            prompt: None,
            place: Place::Entry {
                tar: shard.clone(),
                offset: entry.offset,
                size: entry.size,
            },
        };
        listing.add(item, &shard.path, &format!("byte {}", entry.offset))?;
    }
}

/// The folder that all of `files` are below, so that their names below it are short and no two are
/// equal.
fn common_folder(files: &[PathBuf]) -> PathBuf {
    let mut common: Vec<Component> = match files.first() {
        Some(first) => components_of_folder(first),
        None => Vec::new(),
    };
    for file in files {
        let other = components_of_folder(file);
        let pairs = common.iter().zip(other);
        let shared = pairs.take_while(|(one, other)| *one == other).count();
        common.truncate(shared);
    }
    common.into_iter().collect()
}

fn components_of_folder(file: &Path) -> Vec<Component<'_>> {
    let folder = file.parent().map(Path::components);
    folder.into_iter().flatten().collect()
}
