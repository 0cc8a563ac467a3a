//! The image settings in the files of transformers' processors.
//!
//! `preprocessor_config.json` holds them at its top. `processor_config.json` of transformers 5 holds
//! them under `image_processor`, and then wins; that of 4.46 and later says only how many query
//! tokens there are.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{ImageProcessorConfig, Resample};
use crate::DataError;

const PROCESSOR: &str = "processor_config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";
const NESTED: &str = "image_processor";

/// `BlipImageProcessor`'s settings for what a file leaves out.
const DEFAULT_SIDE: usize = 384;
const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];
const RESCALE_FACTOR: f64 = 1.0 / 255.0;

/// Pillow's numbers of filters.
const BILINEAR: u64 = 2;
const BICUBIC: u64 = 3;

impl ImageProcessorConfig {
    /// Reads the settings of the model in `folder`, in the old and the new form; `None` if there is
    /// no file with any. What a file leaves out is as `BlipImageProcessor` has it.
    ///
    /// Unknown fields are ignored: these files carry many that don't bear on the result.
    ///
    /// # Errors
    ///
    /// A file that can't be read, and a setting that [`ImageProcessor`](super::ImageProcessor) can't
    /// follow, such as a resize that keeps the aspect ratio; both name file and field.
    pub fn from_hugging_face(folder: &Path) -> Result<Option<Self>, DataError> {
        if let Some(file) = File::read(folder.join(PROCESSOR))?
            && let Some(nested) = file.fields.get(NESTED)
        {
            let fields = object(&file.path, NESTED, nested)?;
            let prefix = "image_processor.";
            let path = file.path;
            return File {
                path,
                prefix,
                fields,
            }
            .config()
            .map(Some);
        }
        let file = File::read(folder.join(PREPROCESSOR))?;
        file.map(|file| file.config()).transpose()
    }

    /// The object that transformers 5 writes under `image_processor` into `processor_config.json`;
    /// `preprocessor_config.json` is the same object at its top.
    pub fn to_hugging_face(&self) -> Value {
        let [height, width] = self.size;
        json!({
            "do_convert_rgb": true,
            "do_normalize": true,
            "do_rescale": true,
            "do_resize": true,
            "image_mean": self.image_mean.map(as_written),
            "image_processor_type": "BlipImageProcessor",
            "image_std": self.image_std.map(as_written),
            "resample": match self.resample {
                Resample::Bilinear => BILINEAR,
                Resample::Bicubic => BICUBIC,
            },
            "rescale_factor": RESCALE_FACTOR,
            "size": { "height": height, "width": width },
        })
    }
}

/// The number that a file should hold for `value`: `0.1_f32` is 0.10000000149… as an f64, and CLIP's
/// constants have a digit more than an f32 tells apart.
fn as_written(value: f32) -> f64 {
    let mut clip = CLIP_MEAN.into_iter().chain(CLIP_STD);
    clip.find(|&known| known as f32 == value)
        .or_else(|| value.to_string().parse().ok())
        .unwrap_or(f64::from(value))
}

/// The settings in one file, and what its errors name.
struct File {
    path: PathBuf,
    prefix: &'static str,
    fields: Map<String, Value>,
}

impl File {
    /// `None` if there is no such file.
    fn read(path: PathBuf) -> Result<Option<Self>, DataError> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DataError::io(path)(error)),
        };
        let value: Value = serde_json::from_str(&text)
            .map_err(|error| wrong(&path, "JSON", format!("{error}; fetch the file again")))?;
        let fields = object(&path, "JSON", &value)?;
        let prefix = "";
        Ok(Some(Self {
            path,
            prefix,
            fields,
        }))
    }

    fn config(&self) -> Result<ImageProcessorConfig, DataError> {
        for (field, expected) in [
            ("do_resize", true),
            ("do_rescale", true),
            ("do_center_crop", false),
            ("do_pad", false),
        ] {
            if self.flag(field, expected)? != expected {
                let reason = format!("must be {expected}: no other processing is implemented");
                return Err(self.error(field, reason));
            }
        }
        if let Some(factor) = self.fields.get("rescale_factor")
            && !factor
                .as_f64()
                .is_some_and(|factor| (factor / RESCALE_FACTOR - 1.0).abs() < 1e-6)
        {
            let reason = format!("must be 1/255 ({RESCALE_FACTOR}), not {factor}");
            return Err(self.error("rescale_factor", reason));
        }
        let (image_mean, image_std) = if self.flag("do_normalize", true)? {
            let mean = self.channels("image_mean", CLIP_MEAN)?;
            let std = self.channels("image_std", CLIP_STD)?;
            if std.iter().any(|&std| std <= 0.0) {
                return Err(self.error("image_std", "must be positive numbers".into()));
            }
            (mean, std)
        } else {
            ([0.0; 3], [1.0; 3])
        };
        Ok(ImageProcessorConfig {
            size: self.size()?,
            resample: self.resample()?,
            image_mean,
            image_std,
        })
    }

    fn size(&self) -> Result<[usize; 2], DataError> {
        let error = |reason: String| Err(self.error("size", reason));
        let Some(size) = self.fields.get("size") else {
            return Ok([DEFAULT_SIDE; 2]);
        };
        let (height, width) = match size {
            Value::Number(_) => (Some(size), Some(size)),
            Value::Array(sides) if sides.len() == 2 => (sides.first(), sides.get(1)),
            Value::Object(sides) if sides.contains_key("shortest_edge") => {
                return error(format!(
                    "{size} keeps the aspect ratio, which BLIP-2 does not; \
                     give {{\"height\": …, \"width\": …}}"
                ));
            }
            Value::Object(sides) => (sides.get("height"), sides.get("width")),
            _ => (None, None),
        };
        let side = |value: Option<&Value>| {
            let side = usize::try_from(value?.as_u64()?).ok()?;
            (1..=1 << 14).contains(&side).then_some(side)
        };
        match (side(height), side(width)) {
            (Some(height), Some(width)) => Ok([height, width]),
            _ => error(format!(
                "must be {{\"height\": …, \"width\": …}} or one number, of pixels from 1 to 16384, \
                 not {size}"
            )),
        }
    }

    fn resample(&self) -> Result<Resample, DataError> {
        match self.fields.get("resample") {
            None => Ok(Resample::Bicubic),
            Some(value) => match value.as_u64() {
                Some(BILINEAR) => Ok(Resample::Bilinear),
                Some(BICUBIC) => Ok(Resample::Bicubic),
                _ => {
                    let reason = format!("must be 2 (bilinear) or 3 (bicubic), not {value}");
                    Err(self.error("resample", reason))
                }
            },
        }
    }

    fn flag(&self, field: &str, default: bool) -> Result<bool, DataError> {
        match self.fields.get(field) {
            // transformers takes null for false.
            Some(Value::Null) => Ok(false),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| self.error(field, format!("must be true or false, not {value}"))),
            None => Ok(default),
        }
    }

    /// Three numbers, or one for all channels.
    fn channels(&self, field: &str, default: [f64; 3]) -> Result<[f32; 3], DataError> {
        let Some(value) = self.fields.get(field) else {
            return Ok(default.map(|number| number as f32));
        };
        let number = |value: &Value| {
            let number = value.as_f64()? as f32;
            number.is_finite().then_some(number)
        };
        let channels = match value {
            Value::Array(values) => values.iter().map(number).collect::<Option<Vec<f32>>>(),
            one => number(one).map(|number| vec![number; 3]),
        };
        channels
            .and_then(|channels| <[f32; 3]>::try_from(channels).ok())
            .ok_or_else(|| self.error(field, format!("must be three numbers, not {value}")))
    }

    fn error(&self, field: &str, reason: String) -> DataError {
        wrong(&self.path, &format!("{}{field}", self.prefix), reason)
    }
}

fn object(path: &Path, field: &str, value: &Value) -> Result<Map<String, Value>, DataError> {
    let fields = value.as_object().cloned();
    fields.ok_or_else(|| wrong(path, field, "must be an object, { … }".into()))
}

fn wrong(path: &Path, field: &str, reason: String) -> DataError {
    DataError::ProcessorFile {
        file: path.into(),
        field: field.into(),
        reason,
    }
}

#[cfg(test)]
mod tests;
