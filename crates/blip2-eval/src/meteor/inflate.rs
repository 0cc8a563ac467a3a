//! A gzip file, unpacked by another thread while this one reads.

use std::fs::File;
use std::io::{self, BufRead, Read};
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
    pub fn new(file: File) -> Self {
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

impl BufRead for Inflate {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.block.len() {
            // The thread ends behind an empty block.
            self.block = self.blocks.recv().unwrap_or_else(|_| Ok(Vec::new()))?;
            self.position = 0;
        }
        Ok(&self.block[self.position..])
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount;
    }
}

impl Read for Inflate {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
