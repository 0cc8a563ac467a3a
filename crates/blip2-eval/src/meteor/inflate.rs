//! A gzip file, unpacked by another thread while this one reads.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};

use flate2::read::MultiGzDecoder;

/// Bytes of a block, and blocks that wait to be read.
const BLOCK: usize = 1 << 18;
const AHEAD: usize = 8;

/// The unpacked bytes of a file.
pub(super) struct Inflate {
    blocks: Receiver<io::Result<Vec<u8>>>,
    block: Vec<u8>,
    position: usize,
}

impl Inflate {
    pub fn new(file: impl Read + Send + 'static) -> Self {
        let (sender, blocks) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            let mut file = MultiGzDecoder::new(io::BufReader::with_capacity(BLOCK, file));
            loop {
                let mut block = Vec::with_capacity(BLOCK);
                let read = file.by_ref().take(BLOCK as u64).read_to_end(&mut block);
                let is_last = !matches!(read, Ok(1..));
                // A reader that went away wants no more.
                if sender.send(read.map(|_| block)).is_err() || is_last {
                    return;
                }
            }
        });
        Self {
            blocks,
            block: Vec::new(),
            position: 0,
        }
    }
}

impl Inflate {
    /// Appends the next line to `line`, without its end; false behind the last one.
    pub fn line(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        self.next(|part| line.extend_from_slice(part))
    }

    /// Leaves a line out; false behind the last one.
    pub fn skip_line(&mut self) -> io::Result<bool> {
        self.next(|_| {})
    }

    fn next(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<bool> {
        let mut any = false;
        loop {
            if self.position == self.block.len() {
                // The thread ends behind an empty block.
                self.block = self.blocks.recv().unwrap_or_else(|_| Ok(Vec::new()))?;
                self.position = 0;
                if self.block.is_empty() {
                    return Ok(any);
                }
            }
            any = true;
            let rest = &self.block[self.position..];
            match memchr::memchr(b'\n', rest) {
                Some(end) => {
                    each(&rest[..end]);
                    self.position += end + 1;
                    return Ok(true);
                }
                None => {
                    each(rest);
                    self.position = self.block.len();
                }
            }
        }
    }
}
