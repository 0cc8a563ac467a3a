//! The samples of a shard: entries in a row with one key, as WebDataset has it.

use std::fs::File;

use compact_str::CompactString;

use super::tar::{Damage, Entry, TarScan};

/// A part of a tar file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// The first byte.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
}

/// Where an image and its caption stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShardSample {
    /// The path of its entries without their extensions.
    pub key: CompactString,
    pub image: Span,
    pub caption: Span,
    /// Whether the caption is a field of a JSON object.
    pub is_json: bool,
}

/// What a scan meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Sample(ShardSample),
    /// Something that can't be used: where in the tar, and why.
    Problem(String, String),
}

/// A place in a shard.
#[derive(Debug, Clone)]
pub(super) struct ShardScan {
    tar: TarScan,
    /// Whether captions are read from `.json` alone.
    json_only: bool,
    group: Option<Group>,
    /// What is to be told after the last sample.
    damage: Option<Damage>,
    is_over: bool,
}

/// The entries of one key so far.
#[derive(Debug, Clone, Default)]
struct Group {
    key: String,
    image: Option<Span>,
    text: Option<Span>,
    json: Option<Span>,
    extensions: Vec<String>,
    twice: Option<String>,
}

impl ShardScan {
    /// The start of a shard of `size` bytes.
    pub fn new(size: u64, json_only: bool) -> Self {
        Self {
            tar: TarScan::new(size),
            json_only,
            group: None,
            damage: None,
            is_over: false,
        }
    }

    /// The next sample or problem; none at the end.
    pub fn next(&mut self, tar: &File) -> Option<Found> {
        while !self.is_over {
            match self.tar.next(tar) {
                Ok(Some(entry)) if climbs_out(&entry.name) => {
                    let reason = "its path climbs out of the tar's folder";
                    return Some(Found::Problem(entry.name, reason.into()));
                }
                Ok(Some(entry)) => {
                    if let Some(found) = self.add(&entry) {
                        return Some(found);
                    }
                }
                Ok(None) => self.is_over = true,
                Err(damage) => {
                    self.is_over = true;
                    self.damage = Some(damage);
                }
            }
        }
        if let Some(group) = self.group.take() {
            let found = group.finish(self.json_only);
            // Half a sample at the cut is part of the damage.
            if self.damage.is_none() || matches!(found, Found::Sample(_)) {
                return Some(found);
            }
        }
        self.damage.take().map(|damage| {
            let reason = format!("{}; what stands before is used", damage.reason);
            Found::Problem(format!("byte {}", damage.at), reason)
        })
    }

    /// Adds an entry; gives the sample before it if it begins a new one.
    fn add(&mut self, entry: &Entry) -> Option<Found> {
        let (key, extension) = split_name(&entry.name)?;
        let mut finished = None;
        if self.group.as_ref().is_none_or(|group| group.key != key) {
            let new = Group {
                key: key.to_string(),
                ..Group::default()
            };
            finished = self.group.replace(new);
        }
        if let Some(group) = &mut self.group {
            group.add(extension.to_lowercase(), entry);
        }
        finished.map(|group| group.finish(self.json_only))
    }
}

impl Group {
    fn add(&mut self, extension: String, entry: &Entry) {
        let span = Span {
            offset: entry.offset,
            size: entry.size,
        };
        if self.extensions.contains(&extension) {
            self.twice = Some(extension);
            return;
        }
        match extension.as_str() {
            "jpg" | "jpeg" | "png" | "webp" => self.image = self.image.or(Some(span)),
            "txt" => self.text = Some(span),
            "json" => self.json = Some(span),
            _ => {}
        }
        self.extensions.push(extension);
    }

    fn finish(self, json_only: bool) -> Found {
        let caption = match (json_only, self.text, self.json) {
            (false, Some(text), _) => Some((text, false)),
            (_, _, json) => json.map(|json| (json, true)),
        };
        let problem = match (&self.twice, self.image, caption) {
            (Some(extension), _, _) => format!("has two entries `.{extension}`"),
            (None, None, _) => "has no image (.jpg, .jpeg, .png or .webp)".into(),
            (None, _, None) if json_only => "has no caption (.json, for `caption_field`)".into(),
            (None, _, None) => "has no caption (.txt or .json)".into(),
            (None, Some(image), Some((caption, is_json))) => {
                return Found::Sample(ShardSample {
                    key: self.key.into(),
                    image,
                    caption,
                    is_json,
                });
            }
        };
        Found::Problem(self.key, problem)
    }
}

/// Whether a path leads out of the folder that it is relative to. Nothing is unpacked here, but such
/// a tar was made to harm, or by a mistake.
pub(crate) fn climbs_out(name: &str) -> bool {
    let has_drive =
        matches!(name.as_bytes(), [drive, b':', b'/' | b'\\', ..] if drive.is_ascii_alphabetic());
    name.starts_with(['/', '\\']) || has_drive || name.split(['/', '\\']).any(|part| part == "..")
}

/// The key and the extension of an entry: its last component is cut at its first dot. None for what
/// WebDataset passes over: hidden files, files without extension, and `__meta__`.
fn split_name(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = start + name[start..].find('.')?;
    let is_meta = |part: &str| part.len() > 4 && part.starts_with("__") && part.ends_with("__");
    if dot == start || name.split('/').any(is_meta) {
        return None;
    }
    Some((&name[..dot], &name[dot + 1..]))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::stream::testing::tar;

    /// Keys of samples, and `what: why` of problems.
    fn scan(names: &[&str], json_only: bool) -> Vec<String> {
        let bytes = tar(names.iter().map(|name| (*name, vec![b'x'; 10])));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &bytes).unwrap();
        let opened = File::open(file.path()).unwrap();
        let mut scan = ShardScan::new(bytes.len() as u64, json_only);
        std::iter::from_fn(|| scan.next(&opened))
            .map(|found| match found {
                Found::Sample(sample) => format!("{} {}", sample.key, sample.is_json),
                Found::Problem(place, reason) => format!("{place}: {reason}"),
            })
            .collect()
    }

    #[test]
    fn keys_end_at_the_first_dot_of_the_last_component() {
        assert_eq!(split_name("a.b/c.d.jpg"), Some(("a.b/c", "d.jpg")));
        assert_eq!(split_name("./000.jpg"), Some(("000", "jpg")));
        for passed_over in ["README", "a/.hidden.jpg", "__worker__/a.jpg", "a.b/c"] {
            assert_eq!(split_name(passed_over), None, "{passed_over}");
        }
    }

    #[test]
    fn entries_in_a_row_with_one_key_are_a_sample() {
        let names = [
            "1.jpg", "1.json", "1.txt", "2.txt", "2.PNG", "README", "2.cls", "d/3.webp", "d/3.json",
        ];
        assert_eq!(scan(&names, false), ["1 false", "2 false", "d/3 true"]);
        let json = scan(&names, true);
        assert_eq!((json[0].as_str(), json[2].as_str()), ("1 true", "d/3 true"));
        assert!(json[1].starts_with("2: has no caption"), "{}", json[1]);
    }

    #[test]
    fn what_is_no_sample_is_named_and_the_rest_is_kept() {
        let names = [
            "1.jpg",
            "2.txt",
            "3.jpg",
            "3.jpg",
            "3.txt",
            "../4.jpg",
            "/5.jpg",
            "a/../6.txt",
            "c:\\7.jpg",
            "8.jpg",
            "8.txt",
        ];
        let expected = [
            "1: has no caption",
            "2: has no image",
            "3: has two entries",
            "8 false",
        ];
        let (climbing, rest): (Vec<String>, Vec<String>) = scan(&names, false)
            .into_iter()
            .partition(|found| found.contains("climbs out"));
        assert_eq!(climbing.len(), 4, "{climbing:?}");
        assert_eq!(rest.len(), expected.len(), "{rest:?}");
        for (found, expected) in rest.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }
}
