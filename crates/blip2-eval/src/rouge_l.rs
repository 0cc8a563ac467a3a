//! ROUGE-L as the COCO tools compute it.
//!
//! Lin, 2004: the longest common subsequence, as F-measure with β = 1.2. COCO takes the best
//! precision and the best recall over the references, even if they come from different ones.

const BETA: f64 = 1.2;

/// The score of one candidate, by word numbers.
pub(crate) fn rouge_l(candidate: &[u32], references: &[Vec<u32>]) -> f64 {
    let (mut precision, mut recall) = (0f64, 0f64);
    let mut row = Vec::new();
    for reference in references {
        let common = longest_common_subsequence(candidate, reference, &mut row) as f64;
        precision = precision.max(common / candidate.len().max(1) as f64);
        recall = recall.max(common / reference.len().max(1) as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    (1.0 + BETA * BETA) * precision * recall / (recall + BETA * BETA * precision)
}

/// Its length; `row` is scratch space.
fn longest_common_subsequence(a: &[u32], b: &[u32], row: &mut Vec<usize>) -> usize {
    row.clear();
    row.resize(b.len() + 1, 0);
    for word in a {
        let mut diagonal = 0;
        for (column, other) in b.iter().enumerate() {
            let above = row[column + 1];
            row[column + 1] = if word == other {
                diagonal + 1
            } else {
                above.max(row[column])
            };
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsequences_need_not_be_contiguous() {
        let mut row = Vec::new();
        assert_eq!(
            longest_common_subsequence(&[1, 2, 3, 4], &[9, 1, 3, 9, 4], &mut row),
            3
        );
        assert_eq!(longest_common_subsequence(&[1], &[2], &mut row), 0);
        assert_eq!(rouge_l(&[1, 2], &[vec![1, 2]]), 1.0);
        assert_eq!(rouge_l(&[], &[vec![1]]), 0.0);
        // Best precision from the first, best recall from the second.
        let expected = 2.44 * 0.5 / (0.5 + 1.44);
        let score = rouge_l(&[1, 2], &[vec![1, 2, 3, 4], vec![9, 8, 7, 6]]);
        assert!((score - expected).abs() < 1e-12, "{score}");
    }
}
