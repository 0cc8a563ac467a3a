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
    read: Arc<dyn Fn() -> Result<Vec<u8>, Blip2Error> + Send + Sync>,
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
            read: Arc::new(read),
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
        let bytes = (self.read)()?;
        let count = count_not_finite(&bytes, self.dtype);
        if count > 0 {
            return Err(Blip2Error::NotFinite {
                path: self.file.to_path_buf(),
                key: self.key.clone(),
                count,
            });
        }
        if self.dtype == dtype {
            return Ok(bytes);
        }
        let bytes = Bytes::from_bytes_vec(bytes);
        let data = TensorData::from_bytes(bytes, self.shape.clone(), self.dtype);
        Ok(data.convert_dtype(dtype).into_bytes().to_vec())
    }

    /// A stored tensor as it is.
    pub(crate) fn whole(stored: &StoredTensor) -> Self {
        let of_read = stored.clone();
        Self {
            burn_layout: stored.burn_layout,
            ..Self::new(
                stored.file.clone(),
                stored.key.clone(),
                stored.dtype,
                stored.shape.clone(),
                move || of_read.read(),
            )
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
    let count = |mask: u16| {
        bytes
            .chunks_exact(2)
            .filter(|pair| u16::from_le_bytes([pair[0], pair[1]]) & mask == mask)
            .count()
    };
    match dtype {
        DType::F16 => count(0x7c00),
        DType::BF16 => count(0x7f80),
        DType::F32 => bytes
            .chunks_exact(4)
            .filter(|four| four[3] & 0x7f == 0x7f && four[2] & 0x80 == 0x80)
            .count(),
        DType::F64 => bytes
            .chunks_exact(8)
            .filter(|eight| eight[7] & 0x7f == 0x7f && eight[6] & 0xf0 == 0xf0)
            .count(),
        _ => 0,
    }
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
