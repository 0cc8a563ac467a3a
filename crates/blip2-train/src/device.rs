//! From the word `--device` to a Burn device.

use burn::tensor::Device;

use crate::RunError;

/// The backend words that this binary was built with, the default first.
pub const BACKENDS: &[&str] = &[
    #[cfg(feature = "cuda")]
    "cuda",
    #[cfg(feature = "rocm")]
    "rocm",
    #[cfg(feature = "metal")]
    "metal",
    #[cfg(feature = "vulkan")]
    "vulkan",
    #[cfg(feature = "wgpu")]
    "wgpu",
    #[cfg(feature = "cpu")]
    "cpu",
    #[cfg(feature = "flex")]
    "flex",
];

/// The device that `word` names: `BACKEND`, `BACKEND:INDEX` or a server's `ws://HOST:PORT`; without a
/// word the first backend that was compiled in.
///
/// # Errors
///
/// An unknown word, a backend that was not compiled in, or an index that is no number; a server that
/// can't be used.
pub fn parse(word: Option<&str>) -> Result<Device, RunError> {
    let Some(default) = BACKENDS.first() else {
        return Err(RunError::Usage(
            "this binary was built without a backend; build it with `--features flex`".into(),
        ));
    };
    let word = word.unwrap_or(default);
    if crate::remote::is_word(word) {
        return crate::remote::connect(word);
    }
    let (backend, index) = word.split_once(':').unwrap_or((word, "0"));
    let index: usize = index.parse().map_err(|_| {
        RunError::Usage(format!(
            "--device {word}: `{index}` is no device index; write for example `{backend}:0`"
        ))
    })?;
    if !BACKENDS.contains(&backend) {
        return Err(RunError::Usage(format!(
            "--device {word}: this binary has the backends {}; choose another with \
             `cargo xtask --backend`",
            BACKENDS.join(", ")
        )));
    }
    open(backend, index)
}

/// Whether `device` is the CPU by `flex`, whose memory is the machine's.
pub fn is_flex(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return device.clone().inner() == Device::flex();
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}

#[allow(
    unused_variables,
    reason = "which backends use the index depends on the features"
)]
fn open(backend: &str, index: usize) -> Result<Device, RunError> {
    #[cfg(any(feature = "vulkan", feature = "wgpu", feature = "metal"))]
    let gpu = || {
        if index == 0 {
            burn::tensor::DeviceKind::DefaultDevice
        } else {
            burn::tensor::DeviceKind::DiscreteGpu(index)
        }
    };
    match backend {
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(index)),
        #[cfg(feature = "rocm")]
        "rocm" => Ok(Device::rocm(index)),
        #[cfg(feature = "metal")]
        "metal" => Ok(Device::metal(gpu())),
        #[cfg(feature = "vulkan")]
        "vulkan" => Ok(Device::vulkan(gpu())),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(gpu())),
        #[cfg(feature = "cpu")]
        "cpu" => Ok(Device::cpu()),
        #[cfg(feature = "flex")]
        "flex" if index == 0 => Ok(Device::flex()),
        #[cfg(feature = "flex")]
        "flex" => Err(RunError::Usage(format!(
            "--device flex:{index}: flex has one device, `flex`"
        ))),
        other => Err(RunError::Usage(format!("unknown backend `{other}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_name_no_device_are_usage_errors() {
        for word in ["nonsense", "flex:1", "flex:x", ""] {
            let error = parse(Some(word)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{word}: {error}");
        }
        assert!(parse(None).is_ok());
    }
}
