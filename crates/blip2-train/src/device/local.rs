//! The devices of this machine: which there are, and what to install where there is none.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Device, DeviceType, FloatDType, Tensor};

use crate::RunError;

/// Device `index` of `backend`, which was compiled in, after one number has passed through it.
///
/// # Errors
///
/// If the machine has no such device, or its driver does not start.
pub fn open(backend: &str, index: usize) -> Result<Device, RunError> {
    let devices = list(backend)?;
    match devices.get(index) {
        Some(device) => {
            probe(backend, index, device)?;
            Ok(device.clone())
        }
        None if devices.is_empty() => Err(RunError::Device {
            device: format!("{backend}:{index}"),
            reason: format!("there is none on this machine: {}", missing(backend)),
        }),
        None => Err(RunError::Usage(format!(
            "--device {backend}:{index}: {backend} has {} here, numbered from 0; `blip2 devices` \
             lists them",
            match devices.len() {
                1 => "one device".to_string(),
                count => format!("{count} devices"),
            }
        ))),
    }
}

/// The devices of `backend`, discrete graphics cards before those of processors.
///
/// # Errors
///
/// If the driver fails as it lists them.
pub fn list(backend: &str) -> Result<Vec<Device>, RunError> {
    let Some(device_type) = device_type(backend) else {
        return Ok(Vec::new());
    };
    quietly(|| Device::enumerate(device_type).into_vec()).map_err(|reason| failed(backend, &reason))
}

/// The name that a device gives itself. The device must have answered a [`probe`].
pub fn name(device: &Device) -> String {
    #[cfg(any(
        feature = "cpu",
        feature = "cuda",
        feature = "metal",
        feature = "rocm",
        feature = "vulkan",
        feature = "wgpu"
    ))]
    if let Some(identity) = device.identity() {
        return identity.name;
    }
    let _ = device;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!("this processor, {processors} threads")
}

/// The precisions that `device` computes in.
pub fn precisions(device: &Device) -> Vec<&'static str> {
    let half = [("f16", FloatDType::F16), ("bf16", FloatDType::BF16)];
    let half = half
        .into_iter()
        .filter(|(_, dtype)| device.supports_dtype(*dtype));
    std::iter::once("f32")
        .chain(half.map(|(word, _)| word))
        .collect()
}

/// Sends one number to the device and back: a driver that does not start is found out here, not in the
/// middle of a run.
pub fn probe(backend: &str, index: usize, device: &Device) -> Result<(), RunError> {
    if backend == "flex" {
        return Ok(());
    }
    if backend == "vulkan" {
        let name = quietly(|| name(device)).map_err(|reason| failed(backend, &reason))?;
        refuse_software(index, &name)?;
    }
    let two = quietly(|| {
        let one = Tensor::<1>::from_data([1.0f32], (device, DType::F32));
        (one.clone() + one).into_scalar::<f32>()
    });
    let name = format!("{backend}:{index}");
    match two {
        Ok(2.0) => Ok(()),
        Ok(other) => Err(failed(&name, &format!("1 + 1 gave {other}"))),
        Err(reason) => Err(failed(&name, &reason)),
    }
}

/// Where a device lacks `VK_KHR_workgroup_memory_explicit_layout`, CubeCL 0.11.3 declares shared memory in SPIR-V as
/// a pointer to a pointer (`lower_shared_implicit` of cubecl-spirv), which `spirv-val` refuses and on which Mesa's
/// driver for processors ends the process (SIGSEGV; Mesa 22.3 and 25.0 both lack it). The backend `vulkan` hands
/// over SPIR-V, `wgpu` WGSL.
fn refuse_software(index: usize, name: &str) -> Result<(), RunError> {
    match name.contains("llvmpipe") {
        true => Err(RunError::Device {
            device: format!("vulkan:{index}"),
            reason: format!(
                "it is no graphics card but {name}, which lacks \
                 VK_KHR_workgroup_memory_explicit_layout and would crash on CubeCL's SPIR-V: take \
                 `--backend flex`, or `--backend wgpu`, which goes by WGSL"
            ),
        }),
        false => Ok(()),
    }
}

fn failed(device: &str, reason: &str) -> RunError {
    let backend = device.split(':').next().unwrap_or(device);
    RunError::Device {
        device: device.into(),
        reason: format!("it does not work: {reason}; {}", missing(backend)),
    }
}

/// Runs `work`; a panic in it, on whatever thread, is an error of one line and writes nothing.
fn quietly<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    // The hook is the process's: two at a time would put back each other's.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let first = Arc::new(Mutex::new(None));
    let before = take_hook();
    let told = first.clone();
    set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str();
        let line = text.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get_or_insert(line.unwrap_or_else(|| "it panics".into()));
    }));
    let result = catch_unwind(AssertUnwindSafe(work));
    set_hook(before);
    result.map_err(|_| {
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        first.take().unwrap_or_else(|| "it panics".into())
    })
}

fn device_type(backend: &str) -> Option<DeviceType> {
    Some(match backend {
        #[cfg(feature = "cuda")]
        "cuda" => DeviceType::Cuda,
        #[cfg(feature = "rocm")]
        "rocm" => DeviceType::Rocm,
        #[cfg(feature = "metal")]
        "metal" => DeviceType::Metal,
        #[cfg(feature = "vulkan")]
        "vulkan" => DeviceType::Vulkan,
        #[cfg(feature = "wgpu")]
        "wgpu" => DeviceType::Wgpu,
        #[cfg(feature = "cpu")]
        "cpu" => DeviceType::Cpu,
        #[cfg(feature = "flex")]
        "flex" => DeviceType::Flex,
        _ => return None,
    })
}

/// What must be there for `backend`.
fn missing(backend: &str) -> &'static str {
    match backend {
        "cuda" => {
            "install NVIDIA's driver (Debian: nvidia-driver; `nvidia-smi` must list the card) and the \
             CUDA toolkit's nvrtc"
        }
        "rocm" => "install AMD's ROCm (`rocminfo` must list the card)",
        "metal" => "metal needs macOS and a GPU that it supports",
        "vulkan" | "wgpu" => {
            "install a Vulkan driver (Debian: mesa-vulkan-drivers, which has one for processors too; \
             `vulkaninfo --summary` of vulkan-tools must list a device)"
        }
        _ => "choose another backend with `cargo xtask --backend`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_one_line() {
        let failed = quietly(|| -> () { panic!("no\n  driver {}", 7) });
        assert_eq!(failed, Err("no driver 7".into()));
        let failed = quietly(|| -> () {
            let thread = std::thread::spawn(|| panic!("the first"));
            assert!(thread.join().is_ok(), "the second");
        });
        assert_eq!(failed, Err("the first".into()));
        assert_eq!(quietly(|| 1), Ok(1));
    }

    #[test]
    fn a_driver_that_would_crash_is_refused() {
        let error = refuse_software(0, "llvmpipe (LLVM 15.0.6, 256 bits)").unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("--backend wgpu"), "{error}");
        assert!(refuse_software(0, "AMD Radeon 780M (RADV)").is_ok());
    }

    #[test]
    fn what_is_missing_is_said() {
        let error = failed("vulkan:0", "Unable to acquire wgpu device");
        assert_eq!(error.exit_code(), 1);
        let line = error.to_string();
        for part in ["vulkan:0", "Unable to acquire", "mesa-vulkan-drivers"] {
            assert!(line.contains(part), "{line}");
        }
        assert!(!line.contains('\n'));
    }
}
