//! The headers of a tar file, read where they stand: bodies are stepped over, nothing is unpacked.
//!
//! The formats of a header and of pax records are the crate `tar`'s. Its own iteration borrows the
//! archive and takes a file that ends between two blocks for a whole one; here a scan is a number
//! that can be kept, every position is known, and a cut is told from an end.

use std::fs::File;
use std::io;

use ::tar::{EntryType, Header, PaxExtensions};

const BLOCK: u64 = 512;

/// The longest name or list of pax records that is read; real ones have a few hundred bytes.
const MAX_EXTENSION: u64 = 1 << 20;

/// A regular file in a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The path; bytes that are no UTF-8 are replaced.
    pub name: String,
    /// Where its bytes begin in the tar.
    pub offset: u64,
    /// In bytes; all of them are there.
    pub size: u64,
}

/// From where on a tar can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The byte of the header that is wrong, or that is about something that is not there.
    pub at: u64,
    pub reason: String,
}

/// A place in a tar of `size` bytes.
#[derive(Debug, Clone)]
pub(crate) struct TarScan {
    next: u64,
    size: u64,
}

/// What the headers before an entry's own say about it.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

impl TarScan {
    pub fn new(size: u64) -> Self {
        Self { next: 0, size }
    }

    /// The next regular file; none after the last one.
    ///
    /// # Errors
    ///
    /// A tar that is cut off, damaged, compressed or none at all.
    pub fn next(&mut self, tar: &File) -> Result<Option<Entry>, Damage> {
        let mut extensions = Extensions::default();
        loop {
            let at = self.next;
            let damage = |reason: String| Damage { at, reason };
            let Some(header) = self.header(tar)? else {
                return Ok(None);
            };
            let kind = header.entry_type();
            let size = match extensions.size {
                Some(size) if !is_extension(kind) => size,
                _ => header
                    .entry_size()
                    .map_err(|error| damage(error.to_string()))?,
            };
            let offset = at + BLOCK;
            if size > self.size.saturating_sub(offset) {
                let name = name(&header, &mut extensions);
                return Err(damage(format!("is cut off in `{name}`")));
            }
            self.next = offset + size.div_ceil(BLOCK) * BLOCK;
            if is_extension(kind) {
                let bytes = extension(tar, offset, size).map_err(damage)?;
                extensions.add(kind, bytes).map_err(damage)?;
            } else if kind.is_file() || kind.is_contiguous() {
                let name = name(&header, &mut extensions);
                return Ok(Some(Entry { name, offset, size }));
            } else {
                // Folders, links, devices.
                extensions = Extensions::default();
            }
        }
    }

    /// The header at the scan's place; none at the mark of the end.
    fn header(&self, tar: &File) -> Result<Option<Header>, Damage> {
        let damage = |reason: &str| Damage {
            at: self.next,
            reason: reason.into(),
        };
        if self.next >= self.size {
            return Err(damage("ends without the mark of an end: it is cut off"));
        }
        if self.size - self.next < BLOCK {
            return Err(damage("is cut off in a header"));
        }
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        read_at(tar, block, self.next).map_err(|error| damage(&error.to_string()))?;
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        if self.next == 0
            && (block.starts_with(b"\x1f\x8b") || block.starts_with(b"\x28\xb5\x2f\xfd"))
        {
            return Err(damage(
                "is compressed, and so can't be read from its middle: unpack it to a plain .tar",
            ));
        }
        if header.cksum().ok() != Some(checksum(header.as_bytes())) {
            return Err(damage("is no tar header, or a damaged one"));
        }
        Ok(Some(header))
    }
}

impl Extensions {
    fn add(&mut self, kind: EntryType, mut bytes: Vec<u8>) -> Result<(), String> {
        if kind.is_gnu_longname() {
            bytes.truncate(
                bytes
                    .iter()
                    .position(|&byte| byte == 0)
                    .unwrap_or(bytes.len()),
            );
            self.name = Some(bytes);
        } else if kind.is_pax_local_extensions() {
            for record in PaxExtensions::new(&bytes) {
                let record = record.map_err(|error| error.to_string())?;
                let value = record.value_bytes();
                match record.key_bytes() {
                    b"path" => self.name = Some(value.to_vec()),
                    b"size" => {
                        let size = std::str::from_utf8(value)
                            .ok()
                            .and_then(|size| size.parse().ok());
                        self.size = Some(size.ok_or("a pax size is no number")?);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn is_extension(kind: EntryType) -> bool {
    kind.is_gnu_longname()
        || kind.is_gnu_longlink()
        || kind.is_pax_local_extensions()
        || kind.is_pax_global_extensions()
}

fn extension(tar: &File, offset: u64, size: u64) -> Result<Vec<u8>, String> {
    if size > MAX_EXTENSION {
        return Err(format!("a name or a list of pax records has {size} bytes"));
    }
    let mut bytes = vec![0; size as usize];
    read_at(tar, &mut bytes, offset).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn name(header: &Header, extensions: &mut Extensions) -> String {
    let name = extensions.name.take();
    let bytes = name.unwrap_or_else(|| header.path_bytes().into_owned());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The sum of a header's bytes, its own field (bytes 148 to 155) taken for spaces.
fn checksum(header: &[u8; BLOCK as usize]) -> u32 {
    let (before, field, after) = (&header[..148], 8 * u32::from(b' '), &header[156..]);
    before
        .iter()
        .chain(after)
        .fold(field, |sum, &byte| sum + u32::from(byte))
}

/// Fills `bytes` from `offset` on, whatever other threads read of the same file.
pub(crate) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            let place = offset + done as u64;
            match std::os::windows::fs::FileExt::seek_read(file, &mut bytes[done..], place)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::stream::testing::tar;

    /// All entries up to the end or the damage.
    fn scan(bytes: &[u8]) -> (Vec<Entry>, Option<Damage>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let opened = File::open(file.path()).unwrap();
        let mut scan = TarScan::new(bytes.len() as u64);
        let mut entries = Vec::new();
        loop {
            match scan.next(&opened) {
                Ok(Some(entry)) => entries.push(entry),
                Ok(None) => return (entries, None),
                Err(damage) => return (entries, Some(damage)),
            }
        }
    }

    #[test]
    fn a_cut_at_any_byte_keeps_the_entries_before_it() {
        let names = ["a.jpg".to_string(), format!("{}/b.txt", "long".repeat(60))];
        let whole = tar(names.iter().map(|name| (name.as_str(), vec![7; 700])));
        let (entries, damage) = scan(&whole);
        assert_eq!((entries.len(), damage), (2, None));
        assert_eq!(entries[1].name, names[1]);
        let ends: Vec<u64> = entries
            .iter()
            .map(|entry| entry.offset + entry.size)
            .collect();
        for cut in 0..whole.len() - 1024 {
            let (kept, damage) = scan(&whole[..cut]);
            let expected = ends.iter().filter(|&&end| end <= cut as u64).count();
            assert_eq!(kept, entries[..expected], "cut at {cut}");
            assert!(damage.is_some(), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_tar_says_so() {
        for (bytes, expected) in [
            (vec![], "cut off"),
            (vec![b'x'; 2048], "no tar header"),
            ([&[0x1f, 0x8b][..], &[1; 2046]].concat(), "compressed"),
        ] {
            let (entries, damage) = scan(&bytes);
            assert!(entries.is_empty());
            let reason = damage.unwrap().reason;
            assert!(reason.contains(expected), "{reason}");
        }
    }

    proptest! {
        /// Damaged bytes never panic, and no entry reaches beyond the file.
        #[test]
        fn damaged_bytes_never_panic(at in 0usize..3000, value: u8) {
            let mut bytes = tar([("a.jpg", vec![1; 300]), (&*"n/".repeat(80), vec![2; 9])].into_iter());
            let length = bytes.len();
            bytes[at % length] = value;
            let (entries, _) = scan(&bytes);
            for entry in entries {
                prop_assert!(entry.offset + entry.size <= length as u64);
            }
        }
    }
}
