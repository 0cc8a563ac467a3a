//! The devices of a command, each with the word that named it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::Device;

use crate::{RunError, device, remote};

/// A device and the word that named it.
#[derive(Debug, Clone)]
pub struct NamedDevice {
    /// As on the command line, for messages.
    pub word: String,
    /// The plain device.
    pub device: Device,
}

impl NamedDevice {
    /// Whether it belongs to a server.
    pub fn is_remote(&self) -> bool {
        remote::is_word(&self.word)
    }

    /// Whether it belongs to a server that does not answer any more.
    fn is_lost(&self) -> bool {
        self.is_remote()
            && !catch_unwind(AssertUnwindSafe(|| self.device.sync())).is_ok_and(|done| done.is_ok())
    }
}

/// One device or more. The first holds the model; the others, in training, copies of it.
#[derive(Debug, Clone)]
pub struct Devices(Vec<NamedDevice>);

impl Devices {
    /// Opens the devices that `words` name; without words the default one.
    ///
    /// # Errors
    ///
    /// As [`device::parse`], or a device that is named twice.
    pub fn open(words: &[String]) -> Result<Self, RunError> {
        let mut devices: Vec<NamedDevice> = Vec::new();
        for word in words {
            let device = device::parse(Some(word))?;
            if let Some(same) = devices.iter().find(|other| other.device == device) {
                return Err(RunError::Usage(format!(
                    "the devices `{}` and `{word}` are the same; name each once",
                    same.word
                )));
            }
            let word = word.clone();
            devices.push(NamedDevice { word, device });
        }
        if devices.is_empty() {
            let device = device::parse(None)?;
            let word = device::BACKENDS.first().copied().unwrap_or_default().into();
            devices.push(NamedDevice { word, device });
        }
        Ok(Self(devices))
    }

    /// The words of a list with commas, as `--device` takes it.
    pub fn words(list: &str) -> Vec<String> {
        list.split(',')
            .map(|word| word.trim().to_string())
            .collect()
    }

    /// The one that holds the model.
    pub fn main(&self) -> &Device {
        &self.0[0].device
    }

    /// All, in order.
    pub fn all(&self) -> &[NamedDevice] {
        &self.0
    }

    /// The only one.
    ///
    /// # Errors
    ///
    /// If there are more: only training uses several.
    pub fn only(&self) -> Result<&Device, RunError> {
        match &self.0[..] {
            [one] => Ok(&one.device),
            more => Err(RunError::Usage(format!(
                "--device names {} devices; only `train` uses several",
                more.len()
            ))),
        }
    }

    /// Does `work`, and says which server was lost if that is why it failed: Burn panics where a tensor
    /// can't be read.
    ///
    /// # Errors
    ///
    /// Those of `work`; [`RunError::Device`] in the place of one that a lost server brought about.
    pub fn guard<R>(&self, work: impl FnOnce() -> Result<R, RunError>) -> Result<R, RunError> {
        if !self.0.iter().any(NamedDevice::is_remote) {
            return work();
        }
        let error = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error @ RunError::Device { .. })) => return Err(error),
            Ok(Err(error)) => error,
            Err(panic) => RunError::Training(format!("it panicked: {}", text(&*panic))),
        };
        match self.0.iter().find(|device| device.is_lost()) {
            Some(device) => Err(RunError::Device {
                device: device.word.clone(),
                reason: "the connection to its server is lost".into(),
            }),
            None => Err(error),
        }
    }
}

/// The first line of what a panic says.
fn text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.and_then(|text| text.lines().next())
        .unwrap_or("without a message")
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    fn open(list: &str) -> Result<Devices, RunError> {
        Devices::open(&Devices::words(list))
    }

    #[test]
    fn a_device_is_named_once() {
        for list in ["flex,flex", "flex, flex:0"] {
            let error = open(list).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{list}");
            assert!(error.to_string().contains("same"), "{error}");
        }
        assert_eq!(open("flex,").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn without_a_word_it_is_the_default() {
        let devices = Devices::open(&[]).unwrap();
        assert_eq!(*devices.main(), device::parse(None).unwrap());
        assert!(devices.only().is_ok());
        assert_eq!(devices.all()[0].word, device::BACKENDS[0]);
    }
}
