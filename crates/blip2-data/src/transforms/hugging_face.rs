//! The processor files of transformers, old and new.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{ImageProcessorConfig, Resample};
use crate::DataError;

/// transformers 5 nests the image's settings in this file; before, it held other things.
const PROCESSOR: &str = "processor_config.json";
/// Every other version's.
const PREPROCESSOR: &str = "preprocessor_config.json";

/// `BlipImageProcessor`'s defaults, for fields that a file leaves out.
const DEFAULT_SIZE: usize = 384;
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Pillow's numbers of the filters.
const BILINEAR: u64 = 2;
const BICUBIC: u64 = 3;

impl ImageProcessorConfig {
    /// Reads the processor of a Hugging Face folder; none if there is no file with one.
    ///
    /// # Errors
    ///
    /// A broken file, or settings that this program does not have; file and field are named.
    pub fn from_hugging_face(folder: &Path) -> Result<Option<Self>, DataError> {
        let path = folder.join(PROCESSOR);
        if path.is_file()
            && let Some(Value::Object(fields)) = read(&path)?.remove("image_processor")
        {
            return Ok(Some(parse(&fields, &path)?));
        }
        let path = folder.join(PREPROCESSOR);
        if path.is_file() {
            return Ok(Some(parse(&read(&path)?, &path)?));
        }
        Ok(None)
    }

    /// What transformers' `BlipImageProcessor` reads.
    pub fn to_hugging_face(&self) -> Value {
        // f32 written out as f64 would show digits that nobody chose.
        let decimal = |value: &f32| -> Value {
            let text = value.to_string();
            text.parse::<f64>().map_or(Value::Null, Value::from)
        };
        let [height, width] = self.size;
        let resample = match self.resample {
            Resample::Bicubic => BICUBIC,
            Resample::Bilinear => BILINEAR,
        };
        json!({
            "image_processor_type": "BlipImageProcessor",
            "do_convert_rgb": true,
            "do_resize": true,
            "size": {"height": height, "width": width},
            "resample": resample,
            "do_rescale": true,
            "rescale_factor": 1.0 / 255.0,
            "do_normalize": true,
            "image_mean": self.image_mean.iter().map(decimal).collect::<Vec<_>>(),
            "image_std": self.image_std.iter().map(decimal).collect::<Vec<_>>(),
        })
    }
}

fn read(path: &Path) -> Result<Map<String, Value>, DataError> {
    let text = std::fs::read_to_string(path).map_err(DataError::io(path))?;
    serde_json::from_str(&text).map_err(|error| DataError::Annotation {
        file: path.into(),
        field: "the file".into(),
        reason: error.to_string(),
    })
}

fn parse(fields: &Map<String, Value>, path: &Path) -> Result<ImageProcessorConfig, DataError> {
    let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let error = |name: &str, reason: String| DataError::Annotation {
        file: path.into(),
        field: name.into(),
        reason,
    };
    for name in ["do_resize", "do_rescale", "do_convert_rgb"] {
        if field(name) == Some(&Value::Bool(false)) {
            return Err(error(
                name,
                "is false, but images are always prepared so".into(),
            ));
        }
    }
    if let Some(factor) = field("rescale_factor") {
        let off = factor.as_f64().map(|factor| (factor * 255.0 - 1.0).abs());
        if off.is_none_or(|off| off > 1e-6) {
            return Err(error(
                "rescale_factor",
                format!("expected 1/255, found {factor}"),
            ));
        }
    }
    let resample = match field("resample").map(Value::as_u64) {
        None | Some(Some(BICUBIC)) => Resample::Bicubic,
        Some(Some(BILINEAR)) => Resample::Bilinear,
        _ => {
            let found = &fields["resample"];
            let reason = format!("expected 2 (bilinear) or 3 (bicubic), found {found}");
            return Err(error("resample", reason));
        }
    };
    let normalize = field("do_normalize") != Some(&Value::Bool(false));
    let three = |name: &str, default: [f32; 3], identity: f32| match field(name) {
        _ if !normalize => Ok([identity; 3]),
        None => Ok(default),
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|_| error(name, format!("expected three numbers, found {value}"))),
    };
    let config = ImageProcessorConfig {
        size: size(field("size"), &error)?,
        resample,
        image_mean: three("image_mean", CLIP_MEAN, 0.0)?,
        image_std: three("image_std", CLIP_STD, 1.0)?,
    };
    config
        .init()
        .map_err(|reason| error("the processor", reason.to_string()))?;
    Ok(config)
}

/// `{"height": H, "width": W}`, or one number for both as the first versions wrote it.
fn size(
    value: Option<&Value>,
    error: &impl Fn(&str, String) -> DataError,
) -> Result<[usize; 2], DataError> {
    let Some(value) = value else {
        return Ok([DEFAULT_SIZE; 2]);
    };
    let side = |value: &Value| value.as_u64().map(|side| side as usize);
    let sides = match value {
        Value::Object(sides) => {
            let side = |name: &str| sides.get(name).and_then(side);
            side("height").zip(side("width"))
        }
        value => side(value).map(|side| (side, side)),
    };
    let (height, width) = sides.ok_or_else(|| {
        let reason = format!("expected a number or {{\"height\", \"width\"}}, found {value}");
        error("size", reason)
    })?;
    Ok([height, width])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, Value)]) -> Result<Option<ImageProcessorConfig>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in files {
            std::fs::write(folder.path().join(name), value.to_string()).unwrap();
        }
        ImageProcessorConfig::from_hugging_face(folder.path())
    }

    fn expected(side: usize) -> ImageProcessorConfig {
        ImageProcessorConfig {
            size: [side, side],
            resample: Resample::Bicubic,
            image_mean: CLIP_MEAN,
            image_std: CLIP_STD,
        }
    }

    #[test]
    fn old_and_new_files_are_read() {
        assert_eq!(read(&[]).unwrap(), None);
        let old = json!({"size": 224, "resample": 3, "image_processor_type": "BlipImageProcessor",
            "rescale_factor": 0.00392156862745098, "do_pad": null});
        assert_eq!(
            read(&[(PREPROCESSOR, old.clone())]).unwrap(),
            Some(expected(224))
        );
        let middle = json!({"num_query_tokens": 32, "processor_class": "Blip2Processor"});
        let files = [(PREPROCESSOR, old), (PROCESSOR, middle)];
        assert_eq!(read(&files).unwrap(), Some(expected(224)));
        let new =
            json!({"num_query_tokens": 32, "image_processor": expected(364).to_hugging_face()});
        assert_eq!(read(&[(PROCESSOR, new)]).unwrap(), Some(expected(364)));
        assert_eq!(
            read(&[(PREPROCESSOR, json!({}))]).unwrap(),
            Some(expected(384))
        );
        let plain = read(&[(PREPROCESSOR, json!({"do_normalize": false}))])
            .unwrap()
            .unwrap();
        assert_eq!((plain.image_mean, plain.image_std), ([0.0; 3], [1.0; 3]));
    }

    #[test]
    fn other_settings_are_errors_that_name_file_and_field() {
        for (value, field) in [
            (json!({"size": {"shortest_edge": 224}}), "size"),
            (json!({"resample": 1}), "resample"),
            (json!({"do_resize": false}), "do_resize"),
            (json!({"rescale_factor": 0.5}), "rescale_factor"),
            (json!({"image_mean": [0.5]}), "image_mean"),
            (json!({"image_std": [0, 1, 1]}), "image_std"),
            (json!([]), PREPROCESSOR),
        ] {
            let error = read(&[(PREPROCESSOR, value)]).unwrap_err().to_string();
            assert!(
                error.contains(field) && error.contains(PREPROCESSOR),
                "{error}"
            );
        }
    }
}
