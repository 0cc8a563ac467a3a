//! The word `--backend` and what it means to cargo.

/// The backends, each with the cargo feature of `blip2-train` that has its name.
pub const BACKENDS: [&str; 7] = ["flex", "cpu", "vulkan", "wgpu", "cuda", "metal", "rocm"];

/// Takes `--backend WORD` or `--backend=WORD` out of `arguments`; none if there is none.
pub fn take(arguments: &mut Vec<String>) -> Result<Option<String>, String> {
    let Some(index) = arguments
        .iter()
        .position(|argument| argument == "--backend" || argument.starts_with("--backend="))
    else {
        return Ok(None);
    };
    let argument = arguments.remove(index);
    let word = match argument.split_once('=') {
        Some((_, word)) => word.to_string(),
        None if index < arguments.len() => arguments.remove(index),
        None => return Err("--backend needs a word".into()),
    };
    if BACKENDS.contains(&word.as_str()) {
        Ok(Some(word))
    } else {
        Err(format!(
            "unknown backend `{word}`; known are {}",
            BACKENDS.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_string).collect()
    }

    #[test]
    fn the_word_is_taken_out() {
        for line in [
            "train --backend cuda --out x",
            "train --backend=cuda --out x",
        ] {
            let mut line = arguments(line);
            assert_eq!(take(&mut line), Ok(Some("cuda".to_string())));
            assert_eq!(line, arguments("train --out x"));
        }
        assert_eq!(take(&mut arguments("train")), Ok(None));
        assert!(take(&mut arguments("train --backend")).is_err());
        assert!(take(&mut arguments("train --backend tpu")).is_err());
    }
}
