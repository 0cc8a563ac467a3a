//! Devices of other machines, over WebSocket.

use burn::tensor::Device;

use crate::RunError;

/// The environment variable with the secret that clients and server share.
pub const SECRET: &str = "BLIP2_DEVICE_SECRET";

const SCHEME: &str = "ws://";

/// Whether `word` names a device of a server.
pub fn is_word(word: &str) -> bool {
    word.starts_with(SCHEME)
}

/// What a word names.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// `ws://HOST:PORT`.
    url: String,
    /// Which of the server's devices.
    index: usize,
}

impl Place {
    /// Of `ws://HOST:PORT` or `ws://HOST:PORT/INDEX`.
    fn parse(word: &str) -> Result<Self, RunError> {
        let wrong = |what: &str| {
            RunError::Usage(format!(
                "--device {word}: {what}; write for example ws://gpu:3000, or ws://gpu:3000/1 for \
                 the server's second device"
            ))
        };
        let rest = word.strip_prefix(SCHEME).unwrap_or(word);
        let (place, index) = rest.split_once('/').unwrap_or((rest, ""));
        let index = match index {
            "" => 0,
            index => index
                .parse()
                .map_err(|_| wrong(&format!("`{index}` is no device index")))?,
        };
        let (host, port) = place.rsplit_once(':').unwrap_or((place, ""));
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 => {}
            _ => return Err(wrong(&format!("`{port}` is no port"))),
        }
        let url = format!("{SCHEME}{place}");
        Ok(Self { url, index })
    }
}

/// The secret, if there is one.
#[cfg(feature = "remote")]
fn secret() -> Result<Option<String>, RunError> {
    match std::env::var(SECRET) {
        Ok(secret) => Ok(Some(secret).filter(|secret| !secret.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(RunError::Usage(format!(
            "the environment variable {SECRET} is no text"
        ))),
    }
}

/// Connects to the device that `word` names.
///
/// # Errors
///
/// A word that names no device; a server that can't be reached, or that refuses.
#[cfg(feature = "remote")]
pub fn connect(word: &str) -> Result<Device, RunError> {
    use burn::remote::{ConnectError, RemoteHost};

    let Place { url, index } = Place::parse(word)?;
    let mut host = RemoteHost::websocket(&url);
    if let Some(secret) = secret()? {
        host = host.with_credential(secret);
    }
    quiet_panics();
    eprintln!("connecting to {word}");
    let connected = Device::remote_options(&host).device_index(index).init();
    connected.map_err(|error| match error {
        ConnectError::NoSuchDevice { device_count } => RunError::Usage(format!(
            "--device {word}: its server has {device_count} devices, counted from 0"
        )),
        ConnectError::Unauthorized => RunError::Device {
            device: word.into(),
            reason: format!(
                "its server refuses this client; set {SECRET} to the secret that the server was \
                 started with"
            ),
        },
        error => RunError::Device {
            device: word.into(),
            reason: error.to_string(),
        },
    })
}

/// Says that this binary can't.
///
/// # Errors
///
/// Always.
#[cfg(not(feature = "remote"))]
pub fn connect(word: &str) -> Result<Device, RunError> {
    Place::parse(word)?;
    Err(RunError::Usage(format!(
        "--device {word}: this binary knows no devices of other machines; build it with \
         `cargo xtask --remote`"
    )))
}

/// Keeps panics off stderr, in the log: Burn panics, in threads of its own as well, where a server is
/// gone, and [`Devices::guard`](crate::devices::Devices::guard) says in one line what that means.
#[cfg(feature = "remote")]
fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if crate::out_of_memory::is_why(panic) {
                before(panic);
            }
            tracing::info!("{panic}");
        }));
    });
}

/// Computes for clients on `devices`, of one backend, until Ctrl-C or SIGTERM. `bound` is told the words
/// by which clients name them, in order.
///
/// # Errors
///
/// An address that can't be listened on, or that others can reach without a secret.
#[cfg(feature = "remote")]
pub fn serve(
    devices: &[Device],
    listen: &str,
    bound: impl FnOnce(&[String]) -> Result<(), RunError>,
) -> Result<(), RunError> {
    use burn::server::{RemoteServer, TokenAuthorizer, WebSocketTransport};

    let listener = std::net::TcpListener::bind(listen).map_err(RunError::io(listen))?;
    let address = listener.local_addr().map_err(RunError::io(listen))?;
    let secret = secret()?;
    if secret.is_none() && !address.ip().is_loopback() {
        return Err(RunError::Usage(format!(
            "--listen {listen}: others can reach this address, and whoever connects may compute here; \
             set {SECRET} to a secret, here and on the clients, or listen on 127.0.0.1"
        )));
    }
    let mut server = RemoteServer::new(devices.to_vec());
    if let Some(secret) = secret {
        let authorizer = TokenAuthorizer::new(secret)
            .map_err(|error| RunError::Usage(format!("{SECRET}: {error}")))?;
        server = server.with_authorizer(authorizer);
    }
    let words: Vec<String> = (0..devices.len())
        .map(|index| match index {
            0 => format!("{SCHEME}{address}"),
            index => format!("{SCHEME}{address}/{index}"),
        })
        .collect();
    bound(&words)?;
    let transport = WebSocketTransport::from_listener(listener);
    server.serve(transport).map_err(|error| RunError::Device {
        device: words[0].clone(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_a_server_and_one_of_its_devices() {
        let place = |url: &str, index| Place {
            url: url.into(),
            index,
        };
        for (word, expected) in [
            ("ws://gpu:3000", place("ws://gpu:3000", 0)),
            ("ws://gpu:3000/", place("ws://gpu:3000", 0)),
            ("ws://10.0.0.1:80/3", place("ws://10.0.0.1:80", 3)),
            ("ws://[::1]:3000/1", place("ws://[::1]:3000", 1)),
        ] {
            assert_eq!(Place::parse(word).unwrap(), expected, "{word}");
        }
        for word in [
            "ws://",
            "ws://gpu",
            "ws://:3000",
            "ws://gpu:0",
            "ws://gpu:70000",
            "ws://gpu:x",
            "ws://gpu:3000/x",
            "ws://gpu:3000/0/1",
        ] {
            let error = Place::parse(word).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{word}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
