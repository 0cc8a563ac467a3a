//! One word for the precision of all frozen towers, and what a device makes of it.

use blip2_kernels::Products;
use burn::tensor::{Device, FloatDType};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Precision;
use crate::{Blip2Error, Compute, TowerConfig};

/// The key `precision` of `[model]` and `[stage1]`: how frozen towers are kept, and how they multiply. Trained
/// parts are f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TowersPrecision {
    /// bf16 where the device computes in it, else f16, else f32. On `flex` bf16 where the processor has
    /// AVX-512 BF16, else f32.
    Auto,
    /// 32 bits.
    F32,
    /// IEEE half precision; products are in f32.
    F16,
    /// bfloat16, products too where the device has them.
    BF16,
}

impl TowersPrecision {
    /// How `device` keeps frozen towers, and how it multiplies with them.
    pub fn on(self, device: &Device) -> (Precision, Compute) {
        match self {
            Self::Auto if Products::BF16.available_on(device) => (Precision::BF16, Compute::BF16),
            // It stores half precision too, but widens it for each product: nothing is gained but memory.
            Self::Auto if blip2_kernels::is_flex(device) => (Precision::F32, Compute::F32),
            Self::Auto if Precision::F16.available_on(device) => (Precision::F16, Compute::F32),
            Self::Auto | Self::F32 => (Precision::F32, Compute::F32),
            Self::F16 => (Precision::F16, Compute::F32),
            Self::BF16 => (Precision::BF16, Compute::BF16),
        }
    }

    /// Gives `tower`, the table `field`, what the word means on `device`, which must have it.
    pub(crate) fn resolve<C>(
        word: Option<Self>,
        tower: &mut TowerConfig<C>,
        device: &Device,
        field: &str,
    ) -> Result<(), Blip2Error> {
        if let Some(word) = word
            && tower.frozen
        {
            (tower.dtype, tower.compute) = word.on(device);
        }
        tower.dtype.check_on(device, &format!("{field}.dtype"))
    }

    /// Fails if `tower`, the table `field`, says otherwise by itself.
    pub(crate) fn check<C>(tower: &TowerConfig<C>, field: &str) -> Result<(), Blip2Error> {
        let own = [
            ("dtype", tower.dtype != Precision::F32),
            ("compute", !tower.compute.is_f32()),
        ];
        match own.into_iter().find(|(_, said)| *said) {
            Some((key, _)) => Err(Blip2Error::Config {
                field: format!("{field}.{key}"),
                reason: "the table above it has `precision`, which says this for all frozen towers: leave \
                         one of them out"
                    .into(),
            }),
            None => Ok(()),
        }
    }
}

impl Precision {
    /// Whether `device` keeps numbers in this precision and computes in it.
    pub fn available_on(self, device: &Device) -> bool {
        match self {
            Self::F32 | Self::Stored => true,
            Self::Int8 | Self::Int4 => self.bits().is_none_or(|bits| bits.available(device)),
            Self::F16 => device.supports_dtype(FloatDType::F16),
            Self::BF16 => device.supports_dtype(FloatDType::BF16),
        }
    }

    /// Fails where `device` lacks this precision, for which the key `field` asks.
    pub(crate) fn check_on(self, device: &Device, field: &str) -> Result<(), Blip2Error> {
        if self.available_on(device) {
            return Ok(());
        }
        let lacks = |word| {
            format!(
                "this device has no {word}; take \"f32\", or leave it out and set `precision = \"auto\"` in \
                 the model's table"
            )
        };
        Err(Blip2Error::Config {
            field: field.into(),
            reason: match self {
                Self::F16 => lacks("f16"),
                Self::BF16 => lacks("bf16"),
                _ => "devices of servers keep no int4: choose int8 or bf16".into(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_means_what_the_device_has() {
        let device = Device::flex();
        let fast = Products::BF16.available_on(&device);
        let auto = match fast {
            true => (Precision::BF16, Compute::BF16),
            false => (Precision::F32, Compute::F32),
        };
        for (word, expected) in [
            (TowersPrecision::Auto, auto),
            (TowersPrecision::F32, (Precision::F32, Compute::F32)),
            (TowersPrecision::F16, (Precision::F16, Compute::F32)),
            (TowersPrecision::BF16, (Precision::BF16, Compute::BF16)),
        ] {
            assert_eq!(word.on(&device), expected, "{word:?}");
            assert_eq!(word.on(&device.clone().autodiff()), expected, "{word:?}");
        }
    }

    #[test]
    fn trained_towers_stay_as_they_are() {
        let mut tower = TowerConfig::<()> {
            frozen: false,
            weights: None,
            dtype: Precision::F32,
            compute: Compute::F32,
            architecture: Some(()),
        };
        let resolve = |tower: &mut _| {
            TowersPrecision::resolve(Some(TowersPrecision::BF16), tower, &Device::flex(), "x")
        };
        resolve(&mut tower).unwrap();
        assert_eq!(tower.dtype, Precision::F32);
        tower.frozen = true;
        resolve(&mut tower).unwrap();
        assert_eq!(
            (tower.dtype, tower.compute),
            (Precision::BF16, Compute::BF16)
        );
        let error = TowersPrecision::check(&tower, "model.text_backbone").unwrap_err();
        assert!(
            error.to_string().contains("model.text_backbone.dtype"),
            "{error}"
        );
    }
}
