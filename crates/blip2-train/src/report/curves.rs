//! Line charts as inline SVG.

/// Width and height of a chart, in pixels.
const SIZE: (f64, f64) = (520.0, 240.0);
/// Room for the labels: left, right, top, bottom.
const MARGIN: (f64, f64, f64, f64) = (52.0, 12.0, 12.0, 30.0);
/// A line has at most this many points; more are averaged.
const MAX_POINTS: usize = 400;

/// One line of a chart.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// A CSS colour.
    pub colour: &'a str,
    /// (step, value).
    pub points: Vec<(f64, f64)>,
}

/// A chart of `lines` over the step, or nothing if no line has a point.
pub fn chart(title: &str, lines: &[Line]) -> String {
    let points: Vec<(f64, f64)> = lines
        .iter()
        .flat_map(|line| line.points.iter().copied())
        .filter(|(_, value)| value.is_finite())
        .collect();
    if points.is_empty() {
        return String::new();
    }
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        })
    };
    let (x_low, x_high) = range(&mut points.iter().map(|point| point.0));
    let (y_low, y_high) = range(&mut points.iter().map(|point| point.1));
    let (x_span, y_span) = ((x_high - x_low).max(1e-9), (y_high - y_low).max(1e-9));
    let (left, right, top, bottom) = MARGIN;
    let (width, height) = SIZE;
    let x = |value: f64| left + (value - x_low) / x_span * (width - left - right);
    let y = |value: f64| height - bottom - (value - y_low) / y_span * (height - top - bottom);

    let mut svg = format!(
        "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {width} {height}\" role=\"img\">"
    );
    for tick in 0..=4 {
        let value = y_low + y_span * f64::from(tick) / 4.0;
        let row = y(value);
        svg += &format!(
            "<line class=grid x1={left} x2={} y1={row:.1} y2={row:.1} />\
             <text x={} y={:.1} text-anchor=end>{}</text>",
            width - right,
            left - 6.0,
            row + 4.0,
            label(value)
        );
    }
    for tick in 0..=4 {
        let value = x_low + x_span * f64::from(tick) / 4.0;
        svg += &format!(
            "<text x={:.1} y={} text-anchor=middle>{:.0}</text>",
            x(value),
            height - 10.0,
            value
        );
    }
    for line in lines {
        let path: Vec<String> = thin(&line.points)
            .iter()
            .map(|&(step, value)| format!("{:.1},{:.1}", x(step), y(value)))
            .collect();
        svg += &format!(
            "<polyline points=\"{}\" style=\"stroke:{}\" />",
            path.join(" "),
            line.colour
        );
        if path.len() <= 40 {
            for point in path {
                let (cx, cy) = point.split_once(',').unwrap_or_default();
                svg += &format!(
                    "<circle cx={cx} cy={cy} r=2.5 style=\"fill:{}\" />",
                    line.colour
                );
            }
        }
    }
    svg += "</svg><p class=legend>";
    for line in lines {
        svg += &format!(
            "<span style=\"color:{}\">● {}</span> ",
            line.colour, line.name
        );
    }
    svg + "</p></figure>"
}

fn label(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.01 {
        format!("{value:.1e}")
    } else {
        format!("{value:.2}")
    }
}

/// Averages neighbours until at most [`MAX_POINTS`] are left.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let bucket = points.len().div_ceil(MAX_POINTS).max(1);
    points
        .chunks(bucket)
        .map(|chunk| {
            let count = chunk.len() as f64;
            let (steps, values) = chunk
                .iter()
                .fold((0.0, 0.0), |(a, b), (step, value)| (a + step, b + value));
            (steps / count, values / count)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_averaged_and_short_ones_kept() {
        let points: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i), 1.0)).collect();
        let thinned = thin(&points);
        assert!(thinned.len() <= MAX_POINTS);
        assert!(thinned.iter().all(|&(_, value)| value == 1.0));
        assert_eq!(thin(&points[..3]), points[..3]);
        assert_eq!(chart("empty", &[]), "");
    }
}
