//! Words that keep their full stop.
//!
//! The lists were measured: the original tokenizer was asked about every word of up to four letters
//! and about a dictionary of longer ones.

use super::addresses::tag;
use super::lexer::{Match, Shape};
use super::text::Text;
use super::words::acronym;

/// Months, days, states, companies and others. Their rule looks two characters past the full stop,
/// which makes it win over words with a full stop inside (`etc.x`).
const NAMES: &[&str] = &[
    "al", "ala", "apr", "ariz", "assn", "aug", "bancorp", "bhd", "bldg", "blvd", "bros", "calif",
    "co", "colo", "conn", "corp", "cos", "ct", "dak", "dec", "esq", "est", "etc", "ext", "feb",
    "fla", "fri", "ga", "inc", "ind", "intl", "jan", "jr", "jul", "jun", "kan", "kans", "ky",
    "ltd", "mar", "md", "mich", "minn", "mo", "mon", "mont", "neb", "nev", "nov", "oct", "okla",
    "penn", "plc", "rd", "rt", "sep", "sept", "seq", "sq", "sr", "sys", "tel", "tenn", "thu",
    "thurs", "tue", "tues", "univ", "va", "vt", "wed", "wis", "wisc", "wyo",
];

/// As [`NAMES`], with a capital first letter only.
const CAPITALIZED: &[&str] = &[
    "ark", "az", "del", "ill", "la", "mass", "miss", "ore", "pa", "tex", "wash",
];

/// As [`NAMES`], with a small letter at this index.
const PARTLY_SMALL: &[(&str, usize)] = &[
    ("pte", 2),
    ("ptes", 2),
    ("pty", 2),
    ("ptys", 2),
    ("ppte", 3),
    ("pptes", 3),
    ("ppty", 3),
    ("pptys", 3),
];

/// Titles and others.
const TITLES: &[&str] = &[
    "adj", "adm", "adv", "alex", "assoc", "asst", "atty", "attys", "ave", "brig", "capt", "cf",
    "cie", "cmdr", "col", "comdr", "cpl", "dept", "det", "dr", "drs", "elec", "ens", "ft", "gen",
    "gov", "govs", "hon", "insp", "invt", "jos", "lieut", "lt", "maj", "messrs", "mlle", "mme",
    "mr", "mrs", "ms", "msgr", "mt", "natl", "pfc", "ph", "pres", "prof", "profs", "pvt", "rep",
    "reps", "rev", "sen", "sens", "sfc", "sgt", "spc", "st", "ste", "supt", "supts", "treas", "vs",
    "wm",
];

/// Kept before a digit.
const BEFORE_DIGITS: &[&str] = &["art", "ca", "fig", "figs", "no", "nos", "op", "pp", "prop"];

/// Kept before a space, without a full stop at their end.
const COUNTRIES: &[&str] = &[
    "canada-u.s",
    "eu-u.s",
    "japan-u.s",
    "korean-u.s",
    "non-u.s",
    "sino-u.s",
    "u.s.-u.k",
    "u.s.-u.s.s.r",
];

/// What begins a sentence, with a capital first letter: the full stop between a single letter and
/// one of these ends a sentence.
const SENTENCE_STARTS: &[&str] = &[
    "a",
    "about",
    "according",
    "additionally",
    "after",
    "an",
    "as",
    "at",
    "but",
    "earlier",
    "he",
    "her",
    "here",
    "however",
    "if",
    "in",
    "it",
    "last",
    "many",
    "more",
    "mr.",
    "ms.",
    "now",
    "once",
    "one",
    "other",
    "our",
    "she",
    "since",
    "so",
    "some",
    "such",
    "that",
    "the",
    "their",
    "then",
    "there",
    "these",
    "they",
    "this",
    "we",
    "what",
    "when",
    "while",
    "yet",
    "you",
];

/// All rules for abbreviations.
pub(super) fn matches(text: &Text, start: usize, best: &mut Match) {
    let first = text.ascii(start);
    if !first.is_ascii_alphabetic() {
        return;
    }
    if let Some(end) = acronym(text, start) {
        best.offer(end, end, Shape::Word);
    }
    if let Some(end) = text.any(start, COUNTRIES)
        && text.is_space_or_line_end(end)
    {
        best.offer(end + 1, end, Shape::Word);
    }
    if let Some(end) = text.any(start, &["ph.d.", "ed.d."]) {
        best.offer(end + 2, end, Shape::Word);
    }
    let end = text.ascii_run(start, |byte| byte.is_ascii_alphabetic());
    if text.ascii(end) != b'.' {
        return;
    }
    let stop = end + 1;
    let length = end - start;
    let among = |list: &[&str]| {
        list.iter()
            .any(|known| known.len() == length && text.literal(start, known).is_some())
    };
    if length == 1 {
        if sentence_starts(text, stop) {
            best.offer(stop + 1, end, Shape::Word);
        } else {
            best.offer(stop, stop, Shape::Word);
        }
    } else if length <= 7 {
        let partly_small = |&(known, index): &(&str, usize)| {
            among(&[known]) && text.ascii(start + index).is_ascii_lowercase()
        };
        if among(NAMES)
            || (first.is_ascii_uppercase() && among(CAPITALIZED))
            || PARTLY_SMALL.iter().any(partly_small)
        {
            best.offer(stop + 2, stop, Shape::Word);
        } else if among(TITLES) || manufacturing_or_meeting(text, start, length) {
            best.offer(stop, stop, Shape::Word);
        } else if among(BEFORE_DIGITS) {
            let digit = stop + usize::from(text.is_space_or_line_end(stop));
            if text.is_digit(digit) {
                best.offer(digit + 1, stop, Shape::Word);
            }
        }
    }
}

/// `mfg.` and `mtg.`, whose middle letter is small.
fn manufacturing_or_meeting(text: &Text, start: usize, length: usize) -> bool {
    length == 3
        && text.literal(start, "m").is_some()
        && matches!(text.ascii(start + 1), b'f' | b't')
        && text.literal(start + 2, "g").is_some()
}

fn sentence_starts(text: &Text, stop: usize) -> bool {
    let mut start = stop;
    while text.is_space_or_line_end(start) && start < text.len() {
        start += 1;
    }
    if start == stop {
        return false;
    }
    let capital = text.ascii(start).is_ascii_uppercase();
    SENTENCE_STARTS
        .iter()
        .filter(|_| capital)
        .filter_map(|word| text.literal(start, word))
        .chain(tag(text, start))
        .any(|end| text.is_space_or_line_end(end))
}
