//! Gradients and weights on their way through this process, between devices that can't reach each
//! other.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData, Transaction};

use crate::RunError;

/// Numbers by parameter, on no device.
pub(super) struct Values(BTreeMap<ParamId, TensorData>);

impl Values {
    /// Reads `tensors` of `module`'s parameters, all at once.
    pub fn read<M: Module>(module: &M, tensors: &GradientsParams) -> Result<Self, RunError> {
        let mut read = Read {
            tensors,
            ids: Vec::new(),
            transaction: Some(Transaction::default()),
        };
        module.visit(&mut read);
        let values = match read.transaction {
            Some(transaction) if !read.ids.is_empty() => transaction
                .try_execute()
                .map_err(|error| RunError::Training(error.to_string()))?,
            _ => Vec::new(),
        };
        Ok(Self(read.ids.into_iter().zip(values).collect()))
    }

    /// The same as tensors on `device`.
    pub fn write<M: Module>(&self, module: &M, device: &Device) -> GradientsParams {
        let mut write = Write {
            values: &self.0,
            device,
            tensors: GradientsParams::new(),
        };
        module.visit(&mut write);
        write.tensors
    }
}

struct Read<'a> {
    tensors: &'a GradientsParams,
    ids: Vec<ParamId>,
    transaction: Option<Transaction>,
}

impl ModuleVisitor for Read<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(tensor) = self.tensors.get::<D>(param.id)
            && let Some(transaction) = self.transaction.take()
        {
            self.ids.push(param.id);
            self.transaction = Some(transaction.register(tensor));
        }
    }
}

struct Write<'a> {
    values: &'a BTreeMap<ParamId, TensorData>,
    device: &'a Device,
    tensors: GradientsParams,
}

impl ModuleVisitor for Write<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(values) = self.values.get(&param.id) {
            let on = (self.device, values.dtype());
            let tensor = Tensor::<D>::from_data(values.clone(), on);
            self.tensors.register(param.id, tensor);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;

    use super::*;
    use crate::run::average::weights;

    #[test]
    fn what_is_written_is_what_was_read() {
        let device = Device::default();
        let linear = LinearConfig::new(3, 2).init(&device.clone().autodiff());
        let values = Values::read(&linear, &weights(&linear)).unwrap();
        let written = values.write(&linear, &device);
        assert_eq!(written.len(), 2);
        let found = written.get::<2>(linear.weight.id).unwrap();
        assert_eq!(found.into_data(), linear.weight.val().inner().into_data());
        let none = Values::read(&linear, &GradientsParams::new()).unwrap();
        assert_eq!(none.write(&linear, &device).len(), 0);
    }
}
