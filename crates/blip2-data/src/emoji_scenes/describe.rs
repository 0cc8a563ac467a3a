//! From a scene to captions.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use super::scene::{Axis, CANVAS, Object, Scene, Size, name};

/// Captions of an image.
pub const CAPTIONS: usize = 5;

/// Five different captions of `scene`: all name every object, most say the relation or place, some
/// the background.
pub fn describe(scene: &Scene, rng: &mut impl Rng) -> Vec<String> {
    let on = background(scene, rng);
    let mut captions = match scene.objects.as_slice() {
        [object] => one(object, &on),
        [a, b] if a.category == b.category => two_alike(a, scene.axis, &on),
        [a, b] => two(a, b, scene.axis, &on),
        objects => three(objects, scene.axis, &on),
    };
    captions.shuffle(rng);
    captions.dedup();
    captions.truncate(CAPTIONS);
    captions
}

/// "on a striped blue background", or "on striped blue".
fn background(scene: &Scene, rng: &mut impl Rng) -> String {
    let name = scene.background.name();
    if rng.random_bool(0.7) {
        format!("on {} background", article(&name))
    } else {
        format!("in front of {} background", article(&name))
    }
}

fn one(object: &Object, on: &str) -> Vec<String> {
    let thing = noun_phrase(object);
    let place = place(object);
    vec![
        format!("{thing} {on}"),
        format!("{thing} {place} {on}"),
        format!("{thing} {place} of the picture"),
        format!("there is {thing} {place}"),
        format!("there is {thing} {on}"),
    ]
}

fn two_alike(object: &Object, axis: Axis, on: &str) -> Vec<String> {
    let things = plural(&name(object.category));
    let (side_by_side, arranged) = match axis {
        Axis::Row => ("side by side", "next to each other"),
        Axis::Column => ("one above the other", "on top of each other"),
    };
    vec![
        format!("two {things} {side_by_side}"),
        format!("two {things} {side_by_side} {on}"),
        format!("there are two {things} {on}"),
        format!("two {things} {arranged} {on}"),
        format!("there are two {things} {side_by_side}"),
    ]
}

fn two(a: &Object, b: &Object, axis: Axis, on: &str) -> Vec<String> {
    let (first, second) = (noun_phrase(a), noun_phrase(b));
    let (forward, backward, other_forward) = match axis {
        Axis::Row => ("to the left of", "to the right of", "on the left of"),
        Axis::Column => ("above", "below", "over"),
    };
    vec![
        format!("{first} {forward} {second}"),
        format!("{first} {forward} {second} {on}"),
        format!("{second} {backward} {first} {on}"),
        format!("there is {first} {other_forward} {second}"),
        format!("{first} and {second} {on}"),
    ]
}

fn three(objects: &[Object], axis: Axis, on: &str) -> Vec<String> {
    let phrases: Vec<String> = objects.iter().map(noun_phrase).collect();
    let [first, second, third] = &phrases[..] else {
        return Vec::new();
    };
    let (line, start, end) = match axis {
        Axis::Row => ("in a row", "on the left", "on the right"),
        Axis::Column => ("in a column", "at the top", "at the bottom"),
    };
    vec![
        format!("{first} , {second} and {third} {line}").replace(" ,", ","),
        format!("{first} , {second} and {third} {line} {on}").replace(" ,", ","),
        format!("{second} between {first} and {third}"),
        format!("{second} between {first} and {third} {on}"),
        format!("{first} {start} , {second} in the middle and {third} {end}").replace(" ,", ","),
    ]
}

/// "a dog", "a small umbrella", "a big fox".
fn noun_phrase(object: &Object) -> String {
    let name = name(object.category);
    match object.size {
        Size::Small => format!("a small {name}"),
        Size::Normal => article(&name),
        Size::Big => format!("a big {name}"),
    }
}

fn article(words: &str) -> String {
    let vowel = words.starts_with(['a', 'e', 'i', 'o']) || words.starts_with("umbrella");
    format!("{} {words}", if vowel { "an" } else { "a" })
}

fn plural(name: &str) -> String {
    match name {
        "mouse" => "mice".into(),
        "fish" => "fish".into(),
        name if name.ends_with('y') && !name.ends_with("ey") => {
            format!("{}ies", &name[..name.len() - 1])
        }
        name if name.ends_with(['s', 'x']) => format!("{name}es"),
        name => format!("{name}s"),
    }
}

/// "in the top left corner", "on the right", "in the middle".
fn place(object: &Object) -> String {
    let part = |value: i64| (value * 3 / CANVAS).clamp(0, 2);
    let (x, y) = object.centre;
    match (part(x), part(y)) {
        (1, 1) => "in the middle".into(),
        (0, 1) => "on the left".into(),
        (2, 1) => "on the right".into(),
        (1, 0) => "at the top".into(),
        (1, _) => "at the bottom".into(),
        (x, y) => {
            let vertical = if y == 0 { "top" } else { "bottom" };
            let horizontal = if x == 0 { "left" } else { "right" };
            format!("in the {vertical} {horizontal} corner")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_inflected() {
        assert_eq!(article("apple"), "an apple");
        assert_eq!(article("umbrella"), "an umbrella");
        assert_eq!(article("blue"), "a blue");
        assert_eq!(plural("butterfly"), "butterflies");
        assert_eq!(plural("monkey"), "monkeys");
        assert_eq!(plural("fox"), "foxes");
        assert_eq!(plural("bus"), "buses");
    }
}
