//! Words: letters with their joiners, and what is split off them.

use super::classes::{Class, class};
use super::lexer::{Match, Shape};
use super::text::Text;

/// A letter, a mark or the name of an accented letter (`&eacute;`).
pub(super) fn letter(text: &Text, index: usize) -> Option<usize> {
    match class(text.at(index)) {
        Class::Letter | Class::Mark => return Some(index + 1),
        _ if text.at(index) == 0xad => return Some(index + 1),
        _ => {}
    }
    let vowel = text.ascii(index) == b'&' && b"aeiouAEIOU".contains(&text.ascii(index + 1));
    if vowel {
        text.any(index + 2, &["acute;", "grave;", "uml;"])
    } else {
        None
    }
}

/// Letters and digits that begin with a letter.
fn syllable(text: &Text, start: usize) -> Option<usize> {
    let mut end = letter(text, start)?;
    loop {
        end = match letter(text, end) {
            Some(next) => next,
            None if text.is_digit(end) => end + 1,
            None => return Some(end),
        };
    }
}

/// Words, and words with `.`, `?` or `!` and no space between them.
pub(super) fn word(text: &Text, start: usize) -> Option<usize> {
    let mut end = syllable(text, start)?;
    while matches!(text.ascii(end), b'.' | b'!' | b'?') {
        match syllable(text, end + 1) {
            Some(next) => end = next,
            None => break,
        }
    }
    Some(end)
}

/// The end of `'s`, `'m`, `'d`, `'re`, `'ve`, `'ll`.
fn clitic(text: &Text, start: usize) -> Option<usize> {
    let after = text.apostrophe(start)?;
    if b"msdMSD".contains(&text.ascii(after)) {
        return Some(after + 1);
    }
    text.any(after, &["re", "ve", "ll"])
}

/// The end of `n't`.
fn not(text: &Text, start: usize) -> Option<usize> {
    let n = text.literal(start, "n")?;
    text.literal(text.loose_apostrophe(n)?, "t")
}

/// What becomes two tokens, and the length of the first.
const COMPOUNDS: [(&str, usize); 8] = [
    ("cannot", 3),
    ("gonna", 3),
    ("gotta", 3),
    ("lemme", 3),
    ("gimme", 3),
    ("wanna", 3),
    ("'tis", 2),
    ("'twas", 2),
];

fn compound(text: &Text, start: usize) -> Option<(usize, usize)> {
    let found = |(word, keep): &(&str, usize)| Some((text.literal(start, word)?, start + keep));
    COMPOUNDS.iter().find_map(found)
}

/// The end of a word of ASCII letters with a space or the end of the line behind it. No rule finds
/// anything longer there, so that most words of most captions need no other.
pub(super) fn plain(text: &Text, start: usize) -> Option<usize> {
    let end = text.ascii_run(start, |byte| byte.is_ascii_alphabetic());
    let whole = end > start && matches!(text.at(end), 0x20 | 0x0a);
    (whole && compound(text, start).is_none()).then_some(end)
}

/// All rules for words.
pub(super) fn matches(text: &Text, start: usize, best: &mut Match) {
    if let Some((end, keep)) = compound(text, start) {
        best.offer(end, keep, Shape::Plain);
    }
    let letters = text.ascii_run(start, |byte| byte.is_ascii_alphabetic());
    if letters >= start + 2
        && !matches!(text.ascii(letters - 2), b'n' | b'N')
        && let Some(total) = not(text, letters - 1)
    {
        best.offer(total, letters - 1, Shape::Word);
    }
    if let Some(end) = word(text, start) {
        if let Some(total) = clitic(text, end) {
            best.offer(total, end, Shape::Word);
        }
        best.offer(end, end, Shape::Word);
        stop_before_pause(text, end, best);
    }
    for rule in [joined, ampersand_acronym] {
        if let Some(end) = rule(text, start) {
            best.offer(end, end, Shape::Word);
            stop_before_pause(text, end, best);
        }
    }
    if let Some(end) = apostrophe_word(text, start) {
        best.offer(end, end, Shape::Plain);
    }
    if text.literal(start, "y").is_some()
        && let Some(end) = text.apostrophe(start + 1)
        && text.is_letter(end)
    {
        best.offer(end + 1, end, Shape::Plain);
    }
    if let Some(end) = text.literal(start, "'n")
        && matches!(text.at(end), 0x20 | 0x09 | 0x0a | 0x0d | 0xa0)
    {
        best.offer(end + 1, end, Shape::Plain);
    }
    // Before a letter, the ASCII apostrophe opens a quotation.
    if let Some(end) = clitic(text, start)
        && !(text.ascii(start) == b'\'' && text.ascii(end).is_ascii_alphabetic())
    {
        best.offer(end, end, Shape::Clitic);
    }
    if let Some(end) = not(text, start) {
        best.offer(end, end, Shape::Clitic);
    }
    for rule in [slashed, special] {
        if let Some(end) = rule(text, start) {
            best.offer(end, end, Shape::Word);
        }
    }
}

/// A full stop before a comma, a colon or a semicolon belongs to the word.
fn stop_before_pause(text: &Text, end: usize, best: &mut Match) {
    if text.ascii(end) == b'.' && matches!(text.at(end + 1), 0x2c | 0x3a | 0x3b | 0x3001) {
        best.offer(end + 2, end + 1, Shape::Word);
    }
}

/// Words with an apostrophe that are one token.
fn apostrophe_word(text: &Text, start: usize) -> Option<usize> {
    if let Some(after) = text.apostrophe(start) {
        if let Some(end) = text.any(after, &["em", "till", "til", "cause"]) {
            return Some(end);
        }
        if (b'2'..=b'9').contains(&text.ascii(after)) {
            return text.literal(after + 1, "0s");
        }
        // A plain 'n is a rule of its own.
        let end = text.literal(after, "n")?;
        let alone = (text.ascii(start) != b'\'').then_some(end);
        return text.apostrophe(end).or(alone);
    }
    let letters = text.run(start, |unit| class(unit) == Class::Letter);
    let mut longest = None;
    for (head, tail) in [
        ("dunkin", ""),
        ("somethin", ""),
        ("ol", ""),
        ("cont", "d."),
        ("cont", "d"),
        ("nor", "easter"),
        ("c", "mon"),
        ("e", "er"),
        ("s", "mores"),
        ("ev", "ry"),
        ("li", "l"),
        ("nat", "l"),
        ("o", "o"),
    ] {
        let end = text
            .literal(start, head)
            .and_then(|end| {
                if head == "o" {
                    text.loose_apostrophe(end)
                } else {
                    text.apostrophe(end)
                }
            })
            .and_then(|end| text.literal(end, tail));
        longest = longest.max(end);
    }
    if letters == start {
        return longest;
    }
    if letters == start + 1 && b"lLdDjJ".contains(&text.ascii(start)) {
        longest = longest.max(text.apostrophe(letters));
    }
    if let Some(after) = text.loose_apostrophe(letters) {
        let end = text.run(after, |unit| class(unit) == Class::Letter);
        let initial = matches!(text.ascii(start), b'A'..=b'H' | b'J'..=b'X' | b'Z' | b'n');
        let vowels = b"aeiouyAEIOUY".contains(&text.ascii(letters - 1))
            && matches!(
                text.ascii(after),
                b'a' | b'e' | b'i' | b'o' | b'u' | b'A'..=b'Z'
            );
        if (letters == start + 1 && initial && end >= after + 2) || (letters > start + 1 && vowels)
        {
            longest = longest.max(Some(end));
        }
    }
    longest
}

/// Letters and digits joined by hyphens and underscores; each part may begin with d', o' or l'.
fn joined(text: &Text, start: usize) -> Option<usize> {
    let part = |start: usize| {
        let mut from = start;
        if b"dDoOlL".contains(&text.ascii(start))
            && let Some(after) = text.loose_apostrophe(start + 1)
            && text.is_alphanumeric(after)
            && text.is_alphanumeric(after + 1)
        {
            from = after;
        }
        let end = text.run(from, |unit| {
            matches!(class(unit), Class::Letter | Class::Digit)
        });
        (end > start).then_some(end)
    };
    let mut end = part(start)?;
    while matches!(text.at(end), 0x2d | 0x5f | 0x58a | 0x2010 | 0x2011) {
        match part(end + 1) {
            Some(next) => end = next,
            None => break,
        }
    }
    Some(end)
}

/// Things with full stops and commas before a hyphen: `U.S.-based`.
pub(super) fn dotted_and_joined(text: &Text, start: usize, best: &mut Match) {
    if !text.ascii(start).is_ascii_alphanumeric() {
        return;
    }
    let mut end = text.run(start + 1, |unit| {
        unit == 0xad
            || u8::try_from(unit)
                .is_ok_and(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b',')
    });
    let mut hyphens = 0;
    while text.ascii(end) == b'-' {
        let plain = text.run(end + 1, |unit| {
            unit == 0xad || u8::try_from(unit).is_ok_and(|byte| byte.is_ascii_alphanumeric())
        });
        match acronym(text, end + 1) {
            Some(stop) => end = stop,
            None if plain > end + 1 => end = plain,
            None => break,
        }
        hyphens += 1;
    }
    if hyphens > 0 {
        best.offer(end, end, Shape::Word);
        stop_before_pause(text, end, best);
    }
}

/// Two or more single letters, each with a full stop: `U.S.`
pub(super) fn acronym(text: &Text, start: usize) -> Option<usize> {
    let mut end = start;
    while text.ascii(end).is_ascii_alphabetic() && text.ascii(end + 1) == b'.' {
        end += 2;
    }
    (end >= start + 4).then_some(end)
}

/// `AT&T`, `Q+A`: capitals only.
fn ampersand_acronym(text: &Text, start: usize) -> Option<usize> {
    let capitals = |start| {
        let end = text.ascii_run(start, |byte| byte.is_ascii_uppercase());
        (end > start).then_some(end)
    };
    let mut end = capitals(start)?;
    let mut joins = 0;
    loop {
        let after = match text.ascii(end) {
            b'&' => text.literal(end, "&amp;").unwrap_or(end + 1),
            b'+' => end + 1,
            _ => break,
        };
        match capitals(after) {
            Some(next) => end = next,
            None => break,
        }
        joins += 1;
    }
    (joins > 0).then_some(end)
}

/// Two or three things with slashes between them: `and/or`, `black-and-white/grey`.
fn slashed(text: &Text, start: usize) -> Option<usize> {
    let part = |start: usize| {
        let mut end = text.ascii_run(start, |byte| byte.is_ascii_alphanumeric());
        if end == start {
            return None;
        }
        for _ in 0..2 {
            if text.ascii(end) != b'-' {
                break;
            }
            let next = text.ascii_run(end + 1, |byte| byte.is_ascii_alphabetic());
            if next == end + 1 {
                break;
            }
            end = next;
        }
        Some(end)
    };
    let slash = |index: usize| {
        let index = if text.ascii(index) == b'\\' {
            index + 1
        } else {
            index
        };
        (text.ascii(index) == b'/').then_some(index + 1)
    };
    let mut end = part(slash(part(start)?)?)?;
    if let Some(next) = slash(end).and_then(part) {
        end = next;
    }
    Some(end)
}

/// Names that no other rule keeps whole.
fn special(text: &Text, start: usize) -> Option<usize> {
    for (head, tail) in [
        ("s&", "p-500"),
        ("s&amp;", "p-500"),
        ("s&", "ls"),
        ("s&amp;", "ls"),
    ] {
        if let Some(end) = text
            .literal(start, head)
            .and_then(|end| text.literal(end, tail))
        {
            return Some(end);
        }
    }
    for (head, tail) in [("cap", "n"), ("c", "est")] {
        let after = text
            .literal(start, head)
            .and_then(|end| text.apostrophe(end));
        if let Some(end) = after.and_then(|end| text.literal(end, tail)) {
            return Some(end);
        }
    }
    text.any(
        start,
        &[
            "-rrb-", "-lrb-", "-rcb-", "-lcb-", "-rsb-", "-lsb-", "c.d.s", "pro-", "anti-", "c++",
            "c#", "f#",
        ],
    )
}
