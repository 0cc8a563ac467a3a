//! Tokenizes the captions on standard input, one a line, as the scores do.
//!
//! `cargo run --release -p blip2-eval --example tokenize_lines < captions.txt`

use std::io::{self, BufRead, Write};

fn main() -> io::Result<()> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().split(b'\n') {
        let caption = String::from_utf8(line?)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        writeln!(output, "{}", blip2_eval::tokenize(&caption).join(" "))?;
    }
    output.flush()
}
