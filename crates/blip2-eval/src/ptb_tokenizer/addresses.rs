//! Mark-up, and addresses of the web and of mail.

use super::lexer::{Match, Shape};
use super::text::{Text, is_address};
use super::words::letter;

/// All rules for mark-up and addresses.
pub(super) fn matches(text: &Text, start: usize, best: &mut Match) {
    if let Some(end) = tag(text, start) {
        best.offer(end, end, Shape::Spaced);
    }
    for rule in [full_url, likely_url, handle] {
        if let Some(end) = rule(text, start) {
            best.offer(end, end, Shape::Plain);
        }
    }
    if let Some(end) = mail(text, start) {
        best.offer(end, end, Shape::Plain);
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'.' | b'-')
}

fn name(text: &Text, start: usize) -> Option<usize> {
    text.ascii(start)
        .is_ascii_alphabetic()
        .then(|| text.ascii_run(start + 1, is_name))
}

/// An SGML tag, comment or declaration.
pub(super) fn tag(text: &Text, start: usize) -> Option<usize> {
    if text.ascii(start) != b'<' {
        return None;
    }
    let spaces = |start| text.ascii_run(start, |byte| byte == b' ');
    let close = |end: usize| (text.ascii(end) == b'>').then_some(end + 1);
    match text.ascii(start + 1) {
        b'!' | b'?' => {
            let first = text.ascii(start + 2);
            if !first.is_ascii_alphabetic() && first != b'-' {
                return None;
            }
            close(text.run(start + 3, |unit| !matches!(unit, 0x3e | 0x0a | 0x0d)))
        }
        b'/' => close(spaces(name(text, start + 2)?)),
        _ => {
            let mut end = name(text, start + 1)?;
            loop {
                let at = spaces(end);
                if at == end {
                    break;
                }
                let Some(attribute) = name(text, at) else {
                    break;
                };
                end = value(text, spaces(attribute)).unwrap_or(attribute);
            }
            let end = spaces(end);
            let end = end + usize::from(text.ascii(end) == b'/');
            close(spaces(end))
        }
    }
}

/// The end of `="…"` or `='…'`.
fn value(text: &Text, start: usize) -> Option<usize> {
    if text.ascii(start) != b'=' {
        return None;
    }
    let open = text.ascii_run(start + 1, |byte| byte == b' ');
    let quote = text.at(open);
    if !matches!(quote, 0x22 | 0x27) {
        return None;
    }
    let end = text.run(open + 1, |unit| {
        unit != quote && !matches!(unit, 0x0a | 0x0d)
    });
    (text.at(end) == quote).then_some(end + 1)
}

/// The last unit of an address can't be a stop.
fn last_of_address(text: &Text, start: usize) -> Option<usize> {
    let end = text.run(start, |unit| is_address(unit, b"()"));
    (start + 1..end)
        .rev()
        .find(|&index| is_address(text.at(index), b".!?(){},-"))
        .map(|index| index + 1)
}

fn full_url(text: &Text, start: usize) -> Option<usize> {
    last_of_address(text, text.any(start, &["http://", "https://"])?)
}

/// `www.x.org` and `x.com`, with a path.
pub(super) fn likely_url(text: &Text, start: usize) -> Option<usize> {
    let mut longest = None;
    let mut host = |end: usize| {
        let path = (text.ascii(end) == b'/').then(|| last_of_address(text, end + 1));
        longest = longest.max(path.flatten().or(Some(end)));
    };
    if let Some(mut part) = text.literal(start, "www.") {
        loop {
            let end = text.run(part, |unit| is_address(unit, b".!?(){},"));
            if end == part || text.ascii(end) != b'.' {
                break;
            }
            part = end + 1;
            let top = text.ascii_run(part, |byte| byte.is_ascii_alphabetic());
            if top >= part + 2 {
                host(top.min(part + 4));
            }
        }
    }
    let mut part = start;
    loop {
        // The range from the comma to the underscore holds digits and capitals: they are no part.
        let end = text.run(part, |unit| {
            is_address(unit, b"`'!?(){}$") && !(0x2c..=0x5f).contains(&unit)
        });
        if end == part || text.ascii(end) != b'.' {
            break;
        }
        part = end + 1;
        if let Some(end) = text.any(part, &["com", "net", "org", "edu"]) {
            host(end);
        }
    }
    longest
}

/// A mail address, with angle brackets if it has them.
fn mail(text: &Text, start: usize) -> Option<usize> {
    if !text.has_at {
        return None;
    }
    let from = match text.ascii(start) {
        b'<' => start + 1,
        b'&' => text.literal(start, "&lt;")?,
        _ => start,
    };
    if !text.ascii(from).is_ascii_alphanumeric() {
        return None;
    }
    let part = |unit| unit != 0xa0 && is_address(unit, b"(){}");
    let end = text.run(from, part);
    let mut longest = None;
    for at in (from + 1..end).filter(|&index| text.ascii(index) == b'@') {
        let mut from = at + 1;
        loop {
            let end = text.run(from, |unit| part(unit) && unit != 0x2e);
            if end == from {
                break;
            }
            longest = longest.max(Some(end));
            if text.ascii(end) != b'.' {
                break;
            }
            from = end + 1;
        }
    }
    let end = longest?;
    Some(match text.ascii(end) {
        b'>' => end + 1,
        _ => text.literal(end, "&gt;").unwrap_or(end),
    })
}

/// `@name` and `#topic`.
fn handle(text: &Text, start: usize) -> Option<usize> {
    let end = match text.ascii(start) {
        b'@' if !text.ascii(start + 1).is_ascii_digit() => text.ascii_run(start + 1, |byte| {
            byte.is_ascii_alphanumeric() || byte == b'_'
        }),
        b'#' => {
            let mut end = start + 1;
            while let Some(next) = letter(text, end) {
                end = next;
            }
            end
        }
        _ => return None,
    };
    (end > start + 1).then_some(end)
}

/// What ends the names of files.
const EXTENSIONS: &[&str] = &[
    "bat", "bmp", "c", "cgi", "class", "cpp", "dll", "doc", "docx", "exe", "gif", "gz", "h", "htm",
    "html", "jar", "java", "jpeg", "jpg", "mov", "mp3", "pdf", "php", "pl", "png", "ppt", "ps",
    "py", "sql", "tar", "txt", "wav", "x", "xml", "zip",
];

/// `6.jpg`, before a space or a stop.
pub(super) fn file_name(text: &Text, start: usize, best: &mut Match) {
    let part = |start: usize| {
        let mut end = start;
        loop {
            end = match letter(text, end) {
                Some(next) => next,
                None if text.is_digit(end) => end + 1,
                None => return (end > start).then_some(end),
            };
        }
    };
    let mut from = start;
    while let Some(end) = part(from) {
        if from > start {
            let extension = |known: &&str| text.literal(from, known) == Some(end);
            let ends = text.is_space_or_line_end(end)
                || matches!(text.ascii(end), b'.' | b'?' | b'!' | b',');
            if ends && EXTENSIONS.iter().any(extension) {
                best.offer(end + 1, end, Shape::Plain);
            }
        }
        if text.ascii(end) != b'.' {
            return;
        }
        from = end + 1;
    }
}
