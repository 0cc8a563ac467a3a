//! Batches of a collection, read ahead of who captions them.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use burn::tensor::{Device, Tensor};

use super::{Collection, Item, Place};
use crate::DataError;
use crate::images::stack_kept;
use crate::stream::{MAX_IMAGE, read_at};
use crate::transforms::{DecodeLimits, ImageProcessor, decode_bytes};

/// Batches that wait, decoded, while another one is captioned.
const AHEAD: usize = 2;

/// Images of a collection, as far as they can be read.
#[derive(Debug)]
pub struct CollectionBatch {
    /// `[kept, 3, height, width]`, normalised.
    pub images: Tensor<4>,
    /// The items whose images these are.
    pub kept: Vec<usize>,
    /// The items that can't be read, and why.
    pub failed: Vec<(usize, DataError)>,
}

/// Reads batches of items in the background, in order; see [`Collection::read_ahead`].
#[derive(Debug)]
pub struct ReadAhead {
    receiver: Receiver<Result<CollectionBatch, DataError>>,
    /// Batches that are to come.
    left: usize,
}

impl Iterator for ReadAhead {
    type Item = Result<CollectionBatch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let batch = self.receiver.recv().unwrap_or_else(|_| {
            // An end before the last batch must not look like the end of the work.
            let panicked = "the thread that reads them panicked; its message is above";
            Err(DataError::io("the images")(io::Error::other(panicked)))
        });
        if batch.is_err() {
            self.left = 0;
        }
        Some(batch)
    }
}

impl Collection {
    /// Reads, decodes and prepares `batches`, given by the places of their items, in a thread of its
    /// own, a few batches ahead of their taker. The first batch with an image that may not be left
    /// out is an error, and the last one.
    pub fn read_ahead(
        self: Arc<Self>,
        batches: Vec<Vec<usize>>,
        processor: ImageProcessor,
        device: &Device,
    ) -> ReadAhead {
        let (sender, receiver) = sync_channel(AHEAD - 1);
        let (device, left) = (device.clone(), batches.len());
        thread::spawn(move || {
            for items in batches {
                let batch = self.read(&items, &processor, &device);
                let failed = batch.is_err();
                // Nobody takes any more, or stops at this error.
                if sender.send(batch).is_err() || failed {
                    break;
                }
            }
        });
        ReadAhead { receiver, left }
    }

    fn read(
        &self,
        items: &[usize],
        processor: &ImageProcessor,
        device: &Device,
    ) -> Result<CollectionBatch, DataError> {
        let limits = DecodeLimits::default();
        let read = |row: usize| {
            let item = &self.items[items[row]];
            let bytes = self.bytes(item)?;
            let image = decode_bytes(&item.path(), &bytes, &limits)?;
            Ok((processor.process(&image), items[row]))
        };
        let mut failed = Vec::new();
        let leave_out = |row: usize, error| {
            let item = items[row];
            failed.push((item, self.skips.leave_out(&self.items[item].name, error)?));
            Ok(())
        };
        let (images, kept) = stack_kept(items.len(), read, leave_out, processor.size(), device)?;
        Ok(CollectionBatch {
            images,
            kept,
            failed,
        })
    }

    fn bytes(&self, item: &Item) -> Result<Vec<u8>, DataError> {
        match &item.place {
            Place::File(path) => fs::read(path).map_err(DataError::io(path)),
            Place::Entry { tar, offset, size } => {
                if *size > MAX_IMAGE {
                    return Err(DataError::Image {
                        path: item.path(),
                        reason: format!("the entry has {size} bytes, more than {MAX_IMAGE}"),
                    });
                }
                let file = self.files.open(tar)?;
                let mut bytes = vec![0; *size as usize];
                read_at(&file, &mut bytes, *offset).map_err(DataError::io(item.path()))?;
                Ok(bytes)
            }
        }
    }
}

impl Item {
    /// What it is called in messages.
    fn path(&self) -> PathBuf {
        match &self.place {
            Place::File(path) => path.clone(),
            Place::Entry { tar, .. } => {
                let entry = self.name.rsplit_once(".tar/").map(|(_, entry)| entry);
                tar.path.join(entry.unwrap_or(&self.name))
            }
        }
    }
}
