//! From the word `--device` to a Burn device.

mod local;

use burn::tensor::Device;

pub use self::local::{list, name, precisions, probe};
use crate::RunError;

/// All words that name a backend.
const KNOWN: [&str; 7] = ["flex", "cpu", "vulkan", "wgpu", "cuda", "metal", "rocm"];

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

/// The device that `word` names: `BACKEND`, `BACKEND:INDEX`, the `INDEX` alone of the first backend that
/// was compiled in, or a server's `ws://HOST:PORT`; without a word that backend's first device.
///
/// # Errors
///
/// An unknown word, a backend that was not compiled in, a device that is not there, or a server that can't
/// be used.
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
    let (backend, index) = match word.split_once(':') {
        Some(parts) => parts,
        None if word.parse::<usize>().is_ok() => (*default, word),
        None => (word, "0"),
    };
    let index: usize = index.parse().map_err(|_| {
        RunError::Usage(format!(
            "--device {word}: `{index}` is no device index; write for example `{backend}:0`"
        ))
    })?;
    if !BACKENDS.contains(&backend) {
        return Err(RunError::Usage(match KNOWN.contains(&backend) {
            true => format!(
                "--device {word}: this binary has the backends {}; build it for another one with \
                 `cargo xtask … --backend {backend}`",
                BACKENDS.join(", ")
            ),
            false => format!(
                "--device {word}: there is no backend `{backend}`; known are {}",
                KNOWN.join(", ")
            ),
        }));
    }
    local::open(backend, index)
}

/// Where single numbers are put together that no backend needs to see.
pub fn host() -> Device {
    #[cfg(feature = "flex")]
    return Device::flex();
    #[cfg(not(feature = "flex"))]
    Device::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_name_no_device_are_usage_errors() {
        for word in [
            "nonsense", "flex:1", "flex:x", "flex:-1", "flex:", ":0", "7", "",
        ] {
            let error = parse(Some(word)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{word}: {error}");
            assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn a_backend_that_is_known_but_not_here_is_told_from_an_unknown_one() {
        let line = |word| parse(Some(word)).unwrap_err().to_string();
        let absent = KNOWN.iter().find(|word| !BACKENDS.contains(word));
        let absent = absent.expect("no binary has all");
        assert!(line(absent).contains(&format!("--backend {absent}")));
        assert!(line("tpu").contains("there is no backend `tpu`"));
    }

    #[cfg(feature = "flex")]
    #[test]
    fn an_index_alone_is_one_of_the_first_backend() {
        assert_eq!(parse(Some("flex:0")).unwrap(), Device::flex());
        if BACKENDS == ["flex"] {
            assert_eq!(parse(Some("0")).unwrap(), Device::flex());
            assert_eq!(parse(None).unwrap(), Device::flex());
        }
    }
}
