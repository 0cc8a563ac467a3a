//! Adapters added to weights that are still in their files.

use burn::tensor::{Bytes, DType, Device, Tensor, TensorData};

use super::adapter::{Adapter, LowRank};
use super::fingerprint::of_weights;
use super::layers::linear_layers;
use crate::Blip2Error;
use crate::checkpoint::names::Part;
use crate::checkpoint::{Architecture, Weight, Weights};

impl Adapter {
    /// Adds the adapters to `weights`, of a captioner of these dimensions. Each is computed when the
    /// weight is read, in f32, and rounded to what the file keeps.
    ///
    /// # Errors
    ///
    /// If the adapters belong to another model. Nothing is changed then.
    pub fn merge_into(
        &self,
        weights: &mut Weights,
        architecture: &Architecture,
    ) -> Result<(), Blip2Error> {
        let device = Device::default();
        let vision = architecture.vision.init(&device)?;
        let mut layers = linear_layers(Part::VisionBackbone, &vision);
        let qformer = architecture.qformer.init(&device)?;
        layers.extend(linear_layers(Part::MultimodalBackbone, &qformer));
        let text = architecture.text.init(&device)?;
        layers.extend(linear_layers(Part::TextBackbone, &text));
        self.check(&layers)?;
        if !self.fingerprints.is_empty() {
            self.check_base(&of_weights(self, weights)?)?;
        }
        for layer in &self.layers {
            let Some(weight) = weights.tensors.get_mut(&layer.weight) else {
                return Err(Blip2Error::Missing {
                    path: weights.path.to_path_buf(),
                    keys: vec![weights.key(&layer.weight)],
                });
            };
            *weight = merged(weight, layer.clone());
        }
        Ok(())
    }
}

fn merged(weight: &Weight, layer: LowRank) -> Weight {
    let (of_read, shape, dtype) = (weight.clone(), weight.shape.clone(), weight.dtype);
    let read = move || {
        let device = Device::default();
        let bytes = Bytes::from_bytes_vec(of_read.read(DType::F32)?);
        let data = TensorData::from_bytes(bytes, of_read.shape.clone(), DType::F32);
        let base = Tensor::<2>::from_data(data, &device);
        let a = Tensor::<2>::from_data(layer.a_in_burn(), &device);
        let b = Tensor::<2>::from_data(layer.b_in_burn(), &device);
        let delta = a.matmul(b).mul_scalar(layer.scale());
        let delta = match of_read.burn_layout {
            true => delta,
            false => delta.transpose(),
        };
        let merged = (base + delta).into_data().convert_dtype(dtype);
        Ok(merged.into_bytes().to_vec())
    };
    let mut merged = Weight::new(
        weight.file.clone(),
        weight.key.clone(),
        weight.dtype,
        shape,
        read,
    );
    merged.burn_layout = weight.burn_layout;
    merged
}
