//! Any text is tokenized without a panic, into words without spaces at their ends.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for token in blip2_eval::tokenize(text) {
        assert!(!token.is_empty());
        assert_eq!(token, token.trim_matches([' ', '\t', '\n', '\r']));
    }
});
