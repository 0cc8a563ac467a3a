//! The one kind of pickle that document frequencies come in: numbers by tuples of words.
//!
//! Only what builds dictionaries (and `defaultdict(float)`), tuples, strings and numbers is taken;
//! every other instruction is an error, so nothing of a file is ever called.

use std::collections::HashMap;
use std::rc::Rc;

/// Deeper than any file of this kind; a hostile one could be nested without end.
const MAX_ITEMS: usize = 100_000_000;

#[derive(Clone)]
enum Value {
    Mark,
    Number(f64),
    Text(Rc<str>),
    Tuple(Rc<[Value]>),
    /// The number of a dictionary: they are filled after they were stored.
    Dict(usize),
    /// `collections.defaultdict` or its default; both are left aside.
    Class,
}

/// Words with spaces between them, or a name, and what belongs to it.
type Entries = HashMap<String, Entry>;

enum Entry {
    Number(f64),
    Dict(usize),
}

/// `ref_len` and `document_frequency`.
pub(super) fn read(bytes: &[u8]) -> Result<(f64, HashMap<String, f64>), String> {
    let mut machine = Machine {
        rest: bytes,
        stack: Vec::new(),
        memo: HashMap::new(),
        dicts: Vec::new(),
    };
    let Value::Dict(root) = machine.run()? else {
        return Err("is a pickle, but not of a dictionary".into());
    };
    let mut dicts = machine.dicts;
    let images = match dicts[root].get("ref_len") {
        Some(Entry::Number(images)) => *images,
        _ => return Err("has no number `ref_len`".into()),
    };
    let counts = match dicts[root].get("document_frequency") {
        Some(Entry::Dict(counts)) => *counts,
        _ => return Err("has no dictionary `document_frequency`".into()),
    };
    let counts = std::mem::take(&mut dicts[counts]).into_iter();
    let counts = counts.map(|(ngram, entry)| match entry {
        Entry::Number(count) => Ok((ngram, count)),
        Entry::Dict(_) => Err(format!("`{ngram}` has no count")),
    });
    Ok((images, counts.collect::<Result<_, _>>()?))
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
    dicts: Vec<Entries>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value, String> {
        loop {
            if self.stack.len() > MAX_ITEMS {
                return Err("is a pickle that is nested without end".into());
            }
            let [instruction] = self.array()?;
            match instruction {
                b'.' => return self.pop(),
                b'(' => self.stack.push(Value::Mark),
                b'}' => self.new_dict(),
                b'd' => {
                    let items = self.items()?;
                    self.new_dict();
                    self.fill(items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.fill(vec![key, value])?;
                }
                b'u' => {
                    let items = self.items()?;
                    self.fill(items)?;
                }
                b')' => self.stack.push(Value::Tuple(Rc::new([]))),
                b't' => {
                    let items = self.items()?;
                    self.stack.push(Value::Tuple(items.into()));
                }
                0x85..=0x87 => {
                    let count = usize::from(instruction - 0x84);
                    let start = self.stack.len().checked_sub(count).ok_or(BROKEN)?;
                    let items = self.stack.split_off(start);
                    self.stack.push(Value::Tuple(items.into()));
                }
                // The protocol, and the length of a frame.
                0x80 => _ = self.array::<1>()?,
                0x95 => _ = self.array::<8>()?,
                // A class: by two lines, or by two strings.
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.class(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (module, name) else {
                        return Err(BROKEN.into());
                    };
                    self.class(&module, &name)?;
                }
                // `defaultdict(float)` becomes a dictionary.
                b'R' => {
                    self.pop()?;
                    let Value::Class = self.pop()? else {
                        return Err(BROKEN.into());
                    };
                    self.new_dict();
                }
                b'q' => {
                    let [index] = self.array()?;
                    self.store(index.into())?;
                }
                b'r' => {
                    let index = u32::from_le_bytes(self.array()?);
                    self.store(index)?;
                }
                b'p' => {
                    let index = self.number_line()?;
                    self.store(index)?;
                }
                0x94 => {
                    let index = u32::try_from(self.memo.len()).map_err(|_| BROKEN)?;
                    self.store(index)?;
                }
                b'h' => {
                    let [index] = self.array()?;
                    self.load(index.into())?;
                }
                b'j' => {
                    let index = u32::from_le_bytes(self.array()?);
                    self.load(index)?;
                }
                b'g' => {
                    let index = self.number_line()?;
                    self.load(index)?;
                }
                _ => {
                    let value = self.scalar(instruction)?;
                    self.stack.push(value);
                }
            }
        }
    }

    /// Numbers and strings.
    fn scalar(&mut self, instruction: u8) -> Result<Value, String> {
        Ok(match instruction {
            b'N' => Value::Number(f64::NAN),
            b'K' => Value::Number(self.array::<1>()?[0].into()),
            b'M' => Value::Number(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Number(i32::from_le_bytes(self.array()?).into()),
            b'G' => Value::Number(f64::from_be_bytes(self.array()?)),
            b'I' | b'F' => Value::Number(self.number_line()?),
            b'L' => {
                let line = self.line()?;
                let digits = line.trim_end_matches('L').parse().map_err(|_| BROKEN)?;
                Value::Number(digits)
            }
            0x8a => {
                let [length] = self.array()?;
                let bytes = self.bytes(length.into())?;
                if bytes.len() > 8 {
                    return Err(BROKEN.into());
                }
                let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
                let mut wide = [if negative { 0xff } else { 0 }; 8];
                wide[..bytes.len()].copy_from_slice(bytes);
                Value::Number(i64::from_le_bytes(wide) as f64)
            }
            b'U' | 0x8c => {
                let [length] = self.array()?;
                self.text(length.into())?
            }
            b'T' | b'X' => {
                let length = u32::from_le_bytes(self.array()?);
                self.text(length as usize)?
            }
            b'V' => Value::Text(self.line()?.into()),
            b'S' => {
                let quoted = self.line()?;
                let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or("");
                Value::Text(inner.replace("\\'", "'").replace("\\\\", "\\").into())
            }
            other => {
                return Err(format!(
                    "is no pickle of document frequencies: it has the instruction 0x{other:02x}"
                ));
            }
        })
    }

    fn class(&mut self, module: &str, name: &str) -> Result<(), String> {
        match (module, name) {
            ("collections", "defaultdict") | ("__builtin__" | "builtins", "float" | "int") => {
                self.stack.push(Value::Class);
                Ok(())
            }
            _ => Err(format!(
                "is a pickle that would use {module}.{name}: refused"
            )),
        }
    }

    fn new_dict(&mut self) {
        self.stack.push(Value::Dict(self.dicts.len()));
        self.dicts.push(Entries::new());
    }

    /// Puts keys and values into the dictionary on top of the stack.
    fn fill(&mut self, items: Vec<Value>) -> Result<(), String> {
        let Some(Value::Dict(dict)) = self.stack.last() else {
            return Err(BROKEN.into());
        };
        for pair in items.chunks(2) {
            let [key, value] = pair else {
                return Err(BROKEN.into());
            };
            let key = match key {
                Value::Text(text) => text.to_string(),
                Value::Tuple(words) => words
                    .iter()
                    .map(|word| match word {
                        Value::Text(text) => Ok(&**text),
                        _ => Err(BROKEN),
                    })
                    .collect::<Result<Vec<_>, _>>()?
                    .join(" "),
                _ => return Err(BROKEN.into()),
            };
            let entry = match value {
                Value::Number(number) => Entry::Number(*number),
                Value::Dict(dict) => Entry::Dict(*dict),
                _ => return Err(format!("`{key}` is neither a number nor a dictionary")),
            };
            self.dicts[*dict].insert(key, entry);
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, String> {
        Ok(self.stack.pop().ok_or(BROKEN)?)
    }

    /// What is above the last mark.
    fn items(&mut self) -> Result<Vec<Value>, String> {
        let is_mark = |value: &Value| matches!(value, Value::Mark);
        let mark = self.stack.iter().rposition(is_mark).ok_or(BROKEN)?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn store(&mut self, index: u32) -> Result<(), String> {
        let value = self.stack.last().ok_or(BROKEN)?.clone();
        self.memo.insert(index, value);
        Ok(())
    }

    fn load(&mut self, index: u32) -> Result<(), String> {
        let value = self.memo.get(&index).ok_or(BROKEN)?.clone();
        self.stack.push(value);
        Ok(())
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or("ends too early")?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or("ends too early")?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn text(&mut self, length: usize) -> Result<Value, String> {
        let text = std::str::from_utf8(self.bytes(length)?).map_err(|error| error.to_string())?;
        Ok(Value::Text(text.into()))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or("ends too early")?;
        let line = std::str::from_utf8(&self.rest[..end]).map_err(|error| error.to_string())?;
        self.rest = &self.rest[end + 1..];
        Ok(line)
    }

    fn number_line<T: std::str::FromStr>(&mut self) -> Result<T, String> {
        Ok(self.line()?.parse().map_err(|_| BROKEN)?)
    }
}

const BROKEN: &str = "is no pickle of document frequencies";

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// `pickle.dumps({"document_frequency": frequency, "ref_len": 113287}, protocol)` of
    /// `frequency = defaultdict(float)` with `("a", "dog"): 2.0`, `("a",): 3.0`, and of a dict.
    const PICKLES: [&str; 4] = [PROTOCOL_0, PROTOCOL_2, PROTOCOL_4, DICT];
    const PROTOCOL_0: &str = "\
        KGRwMApWZG9jdW1lbnRfZnJlcXVlbmN5CnAxCmNjb2xsZWN0aW9ucwpkZWZhdWx0ZGljdApwMgooY19fYnVp\
        bHRpbl9fCmZsb2F0CnAzCnRwNApScDUKKFZhCnA2ClZkb2cKcDcKdHA4CkYyLjAKcyhnNgp0cDkKRjMuMApz\
        c1ZyZWZfbGVuCnAxMApJMTEzMjg3CnMu";
    const PROTOCOL_2: &str = "\
        gAJ9cQAoWBIAAABkb2N1bWVudF9mcmVxdWVuY3lxAWNjb2xsZWN0aW9ucwpkZWZhdWx0ZGljdApxAmNfX2J1\
        aWx0aW5fXwpmbG9hdApxA4VxBFJxBShYAQAAAGFxBlgDAAAAZG9ncQeGcQhHQAAAAAAAAABoBoVxCUdACAAA\
        AAAAAHVYBwAAAHJlZl9sZW5xCkqHugEAdS4=";
    const PROTOCOL_4: &str = "\
        gASVhAAAAAAAAAB9lCiMEmRvY3VtZW50X2ZyZXF1ZW5jeZSMC2NvbGxlY3Rpb25zlIwLZGVmYXVsdGRpY3SU\
        k5SMCGJ1aWx0aW5zlIwFZmxvYXSUk5SFlFKUKIwBYZSMA2RvZ5SGlEdAAAAAAAAAAGgKhZRHQAgAAAAAAAB1\
        jAdyZWZfbGVulEqHugEAdS4=";
    const DICT: &str = "\
        gASVTwAAAAAAAAB9lCiMEmRvY3VtZW50X2ZyZXF1ZW5jeZR9lCiMAWGUjANkb2eUhpRHQAAAAAAAAABoA4WU\
        R0AIAAAAAAAAdYwHcmVmX2xlbpRKh7oBAHUu";

    #[test]
    fn pickles_of_every_protocol_give_the_same() {
        for pickle in PICKLES {
            let (images, counts) = read(&STANDARD.decode(pickle).unwrap()).unwrap();
            assert_eq!(images, 113_287.0);
            assert_eq!(counts.len(), 2);
            assert_eq!((counts["a dog"], counts["a"]), (2.0, 3.0));
        }
    }

    #[test]
    fn broken_and_hostile_pickles_are_errors() {
        for pickle in PICKLES {
            let bytes = STANDARD.decode(pickle).unwrap();
            for end in 0..bytes.len() {
                assert!(read(&bytes[..end]).is_err());
            }
            for index in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[index] ^= 0x55;
                let _ = read(&damaged);
            }
        }
        let error = read(b"cos\nsystem\n(S'true'\ntR.").unwrap_err();
        assert!(error.contains("os.system"), "{error}");
    }
}
