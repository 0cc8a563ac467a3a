//! The tensors of a captioner, gathered from files under whatever names, none read yet.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use blip2_vision::keymap::KEY_THIRD;
use burn::tensor::{Bytes, DType, TensorData};

use super::names::{Address, Layout, Meaning, Part};
use super::source::{Source, StoredTensor};
use crate::Blip2Error;

/// One tensor of a captioner, in torch's layout, made of one or more stored ones.
#[derive(Clone)]
pub struct Weight {
    /// The shape in torch's layout, or Burn's where `burn_layout` is set.
    pub shape: Vec<usize>,
    /// The stored element type.
    pub dtype: DType,
    /// Burn's layout: linear weights are `[in, out]`.
    pub burn_layout: bool,
    /// The file and its key, for messages.
    pub file: Arc<Path>,
    /// As `file`.
    pub key: String,
    values: Values,
}

/// Where the values of a weight come from.
#[derive(Clone)]
enum Values {
    /// One tensor of a file, as it stands there.
    Stored(StoredTensor),
    /// They are made of others.
    Made(Arc<dyn Fn() -> Result<Vec<u8>, Blip2Error> + Send + Sync>),
}

impl Weight {
    /// A tensor whose values `read` gives: little-endian, row-major. It is said to come from `file`.
    pub fn new(
        file: Arc<Path>,
        key: String,
        dtype: DType,
        shape: Vec<usize>,
        read: impl Fn() -> Result<Vec<u8>, Blip2Error> + Send + Sync + 'static,
    ) -> Self {
        Self {
            shape,
            dtype,
            burn_layout: false,
            file,
            key,
            values: Values::Made(Arc::new(read)),
        }
    }

    /// The same values in another shape.
    pub fn reshaped(&self, shape: Vec<usize>) -> Self {
        Self {
            shape,
            ..self.clone()
        }
    }

    /// Reads the values and converts them to `dtype`: little-endian, row-major.
    ///
    /// # Errors
    ///
    /// An unreadable file, or NaN and infinity among the values: such weights make every output
    /// NaN.
    pub fn read(&self, dtype: DType) -> Result<Vec<u8>, Blip2Error> {
        let bytes = self.stored_values()?;
        self.check_finite(count_not_finite(&bytes, self.dtype))?;
        if self.dtype == dtype {
            return Ok(bytes);
        }
        let bytes = Bytes::from_bytes_vec(bytes);
        let data = TensorData::from_bytes(bytes, self.shape.clone(), self.dtype);
        Ok(data.convert_dtype(dtype).into_bytes().to_vec())
    }

    /// Whether [`pieces`](Self::pieces) needs room for a piece alone, not for all values.
    pub(crate) fn in_pieces(&self) -> bool {
        matches!(&self.values, Values::Stored(stored) if stored.in_parts())
    }

    /// Hands the values to `take` as they are stored, in order, `len` bytes at a time at most.
    /// `buffer` is room for them, to be used again.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub(crate) fn pieces(
        &self,
        len: usize,
        buffer: &mut Vec<u8>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Blip2Error> {
        let mut count = 0;
        let mut take = |piece: &[u8]| {
            count += count_not_finite(piece, self.dtype);
            take(piece);
        };
        match &self.values {
            Values::Stored(stored) if stored.in_parts() => {
                let bytes = stored.byte_len();
                let len = len.min(bytes);
                if buffer.len() < len {
                    buffer.resize(len, 0);
                }
                for start in (0..bytes).step_by(len.max(1)) {
                    let piece = &mut buffer[..len.min(bytes - start)];
                    stored.read_at(start, piece)?;
                    take(piece);
                }
            }
            _ => {
                let bytes = self.stored_values()?;
                let expected = self.shape.iter().product::<usize>() * self.dtype.size();
                if bytes.len() != expected {
                    return Err(Blip2Error::Format {
                        path: self.file.to_path_buf(),
                        reason: format!(
                            "`{}` has {} bytes in place of {expected}",
                            self.key,
                            bytes.len()
                        ),
                    });
                }
                bytes.chunks(len.max(1)).for_each(take);
            }
        }
        self.check_finite(count)
    }

    fn stored_values(&self) -> Result<Vec<u8>, Blip2Error> {
        match &self.values {
            Values::Stored(stored) => stored.read(),
            Values::Made(make) => make(),
        }
    }

    fn check_finite(&self, count: usize) -> Result<(), Blip2Error> {
        match count {
            0 => Ok(()),
            count => Err(Blip2Error::NotFinite {
                path: self.file.to_path_buf(),
                key: self.key.clone(),
                count,
            }),
        }
    }

    /// A stored tensor as it is.
    pub(crate) fn whole(stored: &StoredTensor) -> Self {
        Self {
            shape: stored.shape.clone(),
            dtype: stored.dtype,
            burn_layout: stored.burn_layout,
            file: stored.file.clone(),
            key: stored.key.clone(),
            values: Values::Stored(stored.clone()),
        }
    }

    /// Query, key and value, joined along the first dimension. A bias on the key that the file
    /// leaves out is zero.
    fn joined(thirds: [Option<StoredTensor>; 3]) -> Option<Self> {
        let [query, _, value] = &thirds;
        let (query, value) = (query.clone()?, value.clone()?);
        let same = |other: &StoredTensor| other.shape == query.shape && other.dtype == query.dtype;
        if !same(&value) || !thirds[KEY_THIRD].as_ref().is_none_or(same) {
            return None;
        }
        let mut shape = query.shape.clone();
        *shape.first_mut()? *= 3;
        let (file, key, dtype) = (query.file.clone(), query.key.clone(), query.dtype);
        let read = move || {
            let mut bytes = query.read()?;
            match &thirds[KEY_THIRD] {
                Some(key) => bytes.extend(key.read()?),
                None => bytes.resize(2 * bytes.len(), 0),
            }
            bytes.extend(value.read()?);
            Ok(bytes)
        };
        Some(Self::new(file, key, dtype, shape, read))
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?}", self.key, self.dtype, self.shape)
    }
}

/// How many values are NaN or infinite.
fn count_not_finite(bytes: &[u8], dtype: DType) -> usize {
    // All bits of the exponent are set in NaN and infinity, in every format.
    match dtype {
        DType::F16 => count_set(bytes, |two| u16::from_le_bytes(two) & 0x7c00 == 0x7c00),
        DType::BF16 => count_set(bytes, |two| u16::from_le_bytes(two) & 0x7f80 == 0x7f80),
        DType::F32 => count_set(bytes, |four| {
            u32::from_le_bytes(four) & 0x7f80_0000 == 0x7f80_0000
        }),
        DType::F64 => count_set(bytes, |eight| {
            u64::from_le_bytes(eight) & 0x7ff0 << 48 == 0x7ff0 << 48
        }),
        _ => 0,
    }
}

/// For how many values `set` holds.
fn count_set<const SIZE: usize>(bytes: &[u8], set: impl Fn([u8; SIZE]) -> bool) -> usize {
    // Counters of 32 bits and whole blocks make it a loop over vectors.
    let (values, _) = bytes.as_chunks::<SIZE>();
    let of_block = |block: &[[u8; SIZE]]| {
        block
            .iter()
            .map(|&value| u32::from(set(value)))
            .sum::<u32>()
    };
    values
        .chunks(1 << 16)
        .map(|block| of_block(block) as usize)
        .sum()
}

/// The tensors of a captioner or a tower, and what else their files hold.
#[derive(Debug, Clone)]
pub struct Weights {
    /// Whose names the file uses.
    pub layout: Layout,
    /// The file, or the index of its shards.
    pub path: Arc<Path>,
    /// Every tensor that is part of a captioner.
    pub tensors: BTreeMap<Address, Weight>,
    /// Keys that captioning does not need, and why.
    pub dropped: Vec<(String, &'static str)>,
    /// Keys that no name of the layout explains.
    pub unexpected: Vec<String>,
}

impl Weights {
    /// Finds out what each tensor of `source` is.
    ///
    /// # Errors
    ///
    /// Names that are of no known layout; query, key and value of different shapes; a weight that
    /// holds no floating-point numbers.
    pub fn of(source: &Source) -> Result<Self, Blip2Error> {
        Self::with(source, Layout::meaning)
    }

    /// As [`of`](Self::of), where `meaning` says what a key of a layout is.
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of).
    pub fn with(
        source: &Source,
        meaning: impl Fn(Layout, &str) -> Meaning,
    ) -> Result<Self, Blip2Error> {
        let keys = source.tensors().keys().map(String::as_str);
        let Some(layout) = Layout::detect(keys) else {
            let first: Vec<&str> = source
                .tensors()
                .keys()
                .take(3)
                .map(String::as_str)
                .collect();
            return Err(Blip2Error::Format {
                path: source.path().to_path_buf(),
                reason: format!(
                    "has names that belong to no known model ({}, …): BLIP-2 of transformers, \
                     LAVIS or mmpretrain, OPT, EVA or CLIP are known",
                    first.join(", ")
                ),
            });
        };
        let mut weights = Self {
            layout,
            path: source.path().into(),
            tensors: BTreeMap::new(),
            dropped: Vec::new(),
            unexpected: Vec::new(),
        };
        let mut thirds: BTreeMap<Address, [Option<StoredTensor>; 3]> = BTreeMap::new();
        for (key, stored) in source.tensors() {
            match meaning(layout, key) {
                Meaning::Dropped(reason) => weights.dropped.push((key.clone(), reason)),
                Meaning::Unknown => weights.unexpected.push(key.clone()),
                Meaning::Weight(address, third) => {
                    if !stored.dtype.is_float() {
                        return Err(Blip2Error::DType {
                            path: stored.file.to_path_buf(),
                            key: key.clone(),
                            found: format!("{:?}", stored.dtype),
                        });
                    }
                    match third {
                        Some(third) => {
                            thirds.entry(address).or_default()[third] = Some(stored.clone());
                        }
                        None => {
                            weights.tensors.insert(address, Weight::whole(stored));
                        }
                    }
                }
            }
        }
        for (address, thirds) in thirds {
            let found = format!("{:?}", thirds.iter().flatten().collect::<Vec<_>>());
            let weight = Weight::joined(thirds).ok_or_else(|| Blip2Error::Format {
                path: source.path().to_path_buf(),
                reason: format!(
                    "query, key and value of `{}` do not belong together: {found}",
                    address.path
                ),
            })?;
            weights.tensors.insert(address, weight);
        }
        Ok(weights)
    }

    /// Opens the checkpoint at `path` and finds out what its tensors are.
    ///
    /// # Errors
    ///
    /// As [`Source::open`] and [`Weights::of`].
    pub fn open(path: &Path) -> Result<Self, Blip2Error> {
        Self::of(&Source::open(path)?)
    }

    /// The key under which the file has, or would have, the tensor at `address`.
    pub fn key(&self, address: &Address) -> String {
        match self.tensors.get(address) {
            Some(weight) => weight.key.clone(),
            None => {
                let keys = self.layout.keys(address);
                keys.into_iter()
                    .map(|key| key.name)
                    .collect::<Vec<_>>()
                    .join(" + ")
            }
        }
    }

    /// The tensor at `path` of `part`.
    pub fn get(&self, part: Part, path: &str) -> Option<&Weight> {
        let path = path.to_string();
        self.tensors.get(&Address { part, path })
    }
}
