//! What a scene holds, drawn at random under the rules of its split.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};

use super::HeldOut;

/// Height and width of an image, in pixels.
pub const CANVAS: i64 = 224;

/// The drawings. Names come from the crate `emojis`; where its name is not what people say, the
/// second column overrides it.
pub const CATEGORIES: [(&str, Option<&str>); 48] = [
    ("🐶", Some("dog")),
    ("🐱", Some("cat")),
    ("🐭", Some("mouse")),
    ("🐰", Some("rabbit")),
    ("🦊", None),
    ("🐻", None),
    ("🐼", None),
    ("🐸", None),
    ("🐵", Some("monkey")),
    ("🐔", None),
    ("🐧", None),
    ("🦉", None),
    ("🐢", None),
    ("🐙", None),
    ("🦀", None),
    ("🐟", None),
    ("🦋", None),
    ("🐝", Some("bee")),
    ("🐞", Some("ladybug")),
    ("🐌", None),
    ("🐘", None),
    ("🍎", Some("apple")),
    ("🍌", None),
    ("🍓", None),
    ("🍉", None),
    ("🍍", None),
    ("🥕", None),
    ("🌽", Some("corn cob")),
    ("🍄", None),
    ("🍕", None),
    ("🍔", None),
    ("🍩", Some("donut")),
    ("🎂", Some("cake")),
    ("🚗", Some("car")),
    ("🚌", None),
    ("🚲", None),
    ("🚀", None),
    ("⛵", None),
    ("🏠", None),
    ("🌵", None),
    ("🌻", None),
    ("🌲", Some("tree")),
    ("⚽", Some("ball")),
    ("🎸", None),
    ("🔑", None),
    ("☂️", None),
    ("🎈", None),
    ("👑", None),
];

/// The name of a category.
pub fn name(category: usize) -> String {
    let (emoji, name) = CATEGORIES[category];
    match name {
        Some(name) => name.to_string(),
        None => emojis::get(emoji)
            .map(|emoji| emoji.name().to_lowercase())
            .unwrap_or_else(|| emoji.to_string()),
    }
}

/// The splits of the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Split {
    /// What a model learns from.
    Train,
    /// What chooses the best checkpoint; distributed as train.
    Val,
    /// Pairs and relations that no other split shows.
    Test,
    /// Distributed as train.
    TestSeen,
}

impl Split {
    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
            Self::TestSeen => "test_seen",
        }
    }
}

/// How big an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Said as "small".
    Small,
    /// Not said.
    Normal,
    /// Said as "big".
    Big,
}

/// How two objects stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Axis {
    /// Left and right.
    Row,
    /// Above and below.
    Column,
}

/// A drawing in a scene.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Index into [`CATEGORIES`].
    pub category: usize,
    /// How big it is said to be.
    pub size: Size,
    /// Centre, in pixels.
    pub centre: (i64, i64),
    /// Height and width, in pixels.
    pub side: i64,
}

/// Colour and texture of the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Background {
    /// Index into the table of colours.
    pub colour: usize,
    /// Index into the table of textures.
    pub texture: usize,
}

/// Background colours: the word, and its RGB value.
pub const COLOURS: [(&str, [u8; 3]); 8] = [
    ("red", [205, 70, 70]),
    ("orange", [240, 160, 75]),
    ("yellow", [246, 225, 120]),
    ("green", [120, 185, 110]),
    ("blue", [100, 150, 220]),
    ("purple", [155, 115, 190]),
    ("gray", [150, 152, 156]),
    ("white", [242, 242, 240]),
];

/// Background textures; the first is not said.
pub const TEXTURES: [&str; 4] = ["plain", "striped", "dotted", "checkered"];

impl Background {
    /// The category of the background: `blue`, `striped blue`, …
    pub fn name(self) -> String {
        let (colour, _) = COLOURS[self.colour];
        match self.texture {
            0 => colour.to_string(),
            texture => format!("{} {colour}", TEXTURES[texture]),
        }
    }

    /// All backgrounds, in the order of their categories.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..COLOURS.len())
            .flat_map(|colour| (0..TEXTURES.len()).map(move |texture| Self { colour, texture }))
    }
}

/// A scene: objects in reading order along its axis, on a background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scene {
    /// One to three; from left to right or from top to bottom.
    pub objects: Vec<Object>,
    /// Their axis; meaningless for one object.
    pub axis: Axis,
    /// The background.
    pub background: Background,
}

impl Scene {
    /// Draws a scene that `split` may show.
    pub fn random(split: Split, held_out: &HeldOut, rng: &mut impl Rng) -> Self {
        let axis = if rng.random_bool(0.5) {
            Axis::Row
        } else {
            Axis::Column
        };
        let background = Background {
            colour: rng.random_range(0..COLOURS.len()),
            // Half of the backgrounds are plain.
            texture: if rng.random_bool(0.5) {
                0
            } else {
                rng.random_range(1..TEXTURES.len())
            },
        };
        let categories = match split {
            Split::Test => {
                let count = if rng.random_bool(0.75) { 2 } else { 3 };
                held_out.unseen(axis, count, rng)
            }
            _ => {
                let count = *[1, 1, 1, 2, 2, 2, 2, 2, 2, 3].choose(rng).unwrap_or(&2);
                held_out.seen(axis, count, rng)
            }
        };
        Self {
            objects: place(&categories, axis, rng),
            axis,
            background,
        }
    }

    /// The unordered pairs of different categories in the scene.
    pub fn pairs(&self) -> Vec<(usize, usize)> {
        let categories: Vec<usize> = self.objects.iter().map(|object| object.category).collect();
        pairs(&categories)
    }
}

/// The unordered pairs of different members of `categories`.
pub(super) fn pairs(categories: &[usize]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for (index, &a) in categories.iter().enumerate() {
        for &b in &categories[index + 1..] {
            if a != b {
                pairs.push((a.min(b), a.max(b)));
            }
        }
    }
    pairs
}

/// Puts objects side by side along `axis` without overlap.
fn place(categories: &[usize], axis: Axis, rng: &mut impl Rng) -> Vec<Object> {
    let mut order = categories.to_vec();
    order.shuffle(rng);
    let count = order.len() as i64;
    let slot = CANVAS / count;
    order
        .into_iter()
        .enumerate()
        .map(|(index, category)| {
            let (size, side) = match (count, rng.random_range(0..10)) {
                (3, 0..2) => (Size::Small, rng.random_range(42..48)),
                (3, _) => (Size::Normal, rng.random_range(62..72)),
                (_, 0..2) => (Size::Small, rng.random_range(42..48)),
                (_, 2..4) => (Size::Big, rng.random_range(96..106)),
                _ => (Size::Normal, rng.random_range(62..74)),
            };
            let half = side / 2 + 1;
            let along = if count == 1 {
                // Thirds of the canvas, so that "left" and "middle" are clear.
                third(rng, half)
            } else {
                let start = index as i64 * slot;
                clamped(rng, start + half, start + slot - half)
            };
            let across = if count == 1 {
                third(rng, half)
            } else {
                clamped(rng, CANVAS / 2 - 36, CANVAS / 2 + 36).clamp(half, CANVAS - half)
            };
            Object {
                category,
                size,
                centre: match axis {
                    Axis::Row => (along, across),
                    Axis::Column => (across, along),
                },
                side,
            }
        })
        .collect()
}

fn clamped(rng: &mut impl Rng, low: i64, high: i64) -> i64 {
    if low >= high {
        (low + high) / 2
    } else {
        rng.random_range(low..=high)
    }
}

/// A centre clearly in the first, second or last part of the canvas.
fn third(rng: &mut impl Rng, half: i64) -> i64 {
    let centre = match rng.random_range(0..3) {
        0 => rng.random_range(44..62),
        1 => rng.random_range(102..122),
        _ => rng.random_range(162..180),
    };
    centre.clamp(half, CANVAS - half)
}
