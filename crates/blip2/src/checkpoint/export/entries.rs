//! The tensors of a file that is to be written: foreign names, layout and precision.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::DType;

use super::WeightsDType;
use crate::Blip2Error;
use crate::checkpoint::fill::Expected;
use crate::checkpoint::names::{Address, Layout};
use crate::checkpoint::place::transposed;
use crate::checkpoint::weights::{Weight, Weights};

type Reader = dyn Fn() -> Result<Vec<u8>, Blip2Error> + Send + Sync;

/// A tensor that is to be written.
#[derive(Clone)]
pub(super) struct Entry {
    pub key: String,
    pub shape: Vec<usize>,
    pub dtype: DType,
    pub read: Arc<Reader>,
}

impl Entry {
    pub fn byte_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// What a file of `layout` holds for `weights`, in the order of the keys; in `dtype`, or each as it
/// is stored. `burn_layout` keeps linear weights as `[in, out]`.
pub(super) fn entries(
    weights: &Weights,
    expected: &BTreeMap<Address, Expected>,
    layout: Layout,
    dtype: Option<WeightsDType>,
    burn_layout: bool,
) -> Result<Vec<Entry>, Blip2Error> {
    let mut entries = Vec::new();
    for (address, expected) in expected {
        let weight = weights
            .tensors
            .get(address)
            .ok_or_else(|| Blip2Error::Missing {
                path: weights.path.to_path_buf(),
                keys: vec![weights.key(address)],
            })?;
        let dtype = dtype.map_or(weight.dtype, WeightsDType::dtype);
        let keys = layout.keys(address);
        for key in keys {
            let mut shape = expected.shape.clone();
            if let (Some(_), Some(rows)) = (key.third, shape.first_mut()) {
                *rows /= 3;
            }
            if burn_layout && expected.transposed {
                shape.reverse();
            }
            let (weight, expected) = (weight.clone(), expected.clone());
            let read = move || read(&weight, &expected, dtype, key.third, burn_layout);
            entries.push(Entry {
                key: key.name,
                shape,
                dtype,
                read: Arc::new(read),
            });
        }
    }
    entries.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(entries)
}

fn read(
    weight: &Weight,
    expected: &Expected,
    dtype: DType,
    third: Option<usize>,
    burn_layout: bool,
) -> Result<Vec<u8>, Blip2Error> {
    let count: usize = expected.shape.iter().product();
    if weight.shape.iter().product::<usize>() != count {
        return Err(Blip2Error::Shape {
            path: weight.file.to_path_buf(),
            key: weight.key.clone(),
            expected: expected.shape.clone(),
            found: weight.shape.clone(),
        });
    }
    let mut bytes = weight.read(dtype)?;
    if expected.transposed && weight.burn_layout != burn_layout {
        let columns = weight.shape.last().copied().unwrap_or(1);
        bytes = transposed(&bytes, dtype, columns).to_vec();
    }
    if let Some(third) = third {
        let size = bytes.len() / 3;
        bytes.drain(..third * size);
        bytes.truncate(size);
    }
    Ok(bytes)
}
