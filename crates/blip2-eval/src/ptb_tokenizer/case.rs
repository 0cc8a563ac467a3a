//! Java's lower case.

/// `token` in lower case; a sigma is final if its word has a cased letter before it and none behind.
pub(super) fn lower_case(token: String) -> String {
    if token.is_ascii() {
        let mut token = token;
        token.make_ascii_lowercase();
        return token;
    }
    if !token.contains('\u{3a3}') {
        return token.to_lowercase();
    }
    let letters: Vec<char> = token.chars().collect();
    let mut lower = String::with_capacity(token.len());
    for (index, letter) in letters.iter().enumerate() {
        if *letter == '\u{3a3}' {
            let before = (0..index).rev();
            let behind = index + 1..letters.len();
            let last = has_cased(&letters, before) && !has_cased(&letters, behind);
            lower.push(if last { '\u{3c2}' } else { '\u{3c3}' });
        } else {
            lower.extend(letter.to_lowercase());
        }
    }
    lower
}

/// Whether a cased letter stands at one of `indices`, up to the end of the word.
fn has_cased(letters: &[char], indices: impl Iterator<Item = usize>) -> bool {
    indices
        .take_while(|&index| inside(letters, index))
        .any(|index| letters[index].is_lowercase() || letters[index].is_uppercase())
}

/// Ideographs and most signs end Java's words. Hyphens between letters do not.
fn inside(letters: &[char], index: usize) -> bool {
    let alphabetic = |index: Option<usize>| {
        index
            .and_then(|index| letters.get(index))
            .is_some_and(|letter| letter.is_alphabetic())
    };
    match letters[index] {
        '-' | '\u{ad}' | '\u{2010}' | '\u{2011}' => {
            alphabetic(index.checked_sub(1)) && alphabetic(Some(index + 1))
        }
        '\'' | '.' | '\u{300}'..='\u{36f}' => true,
        '\u{2e80}'..'\u{ac00}' => false,
        letter => letter.is_alphanumeric(),
    }
}
