//! ROUGE-L as the COCO tools compute it.
//!
//! Lin, 2004: the longest common subsequence, as F-measure with β = 1.2. COCO takes the best
//! precision and the best recall over the references, even if they come from different ones.

const BETA: f64 = 1.2;

/// The score of one candidate.
pub(crate) fn rouge_l(candidate: &[u32], references: &[Vec<u32>]) -> f64 {
    let (mut precision, mut recall) = (0f64, 0f64);
    for reference in references {
        if candidate.is_empty() || reference.is_empty() {
            continue;
        }
        let common = longest_common_subsequence(candidate, reference) as f64;
        precision = precision.max(common / candidate.len() as f64);
        recall = recall.max(common / reference.len() as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    (1.0 + BETA * BETA) * precision * recall / (recall + BETA * BETA * precision)
}

fn longest_common_subsequence(a: &[u32], b: &[u32]) -> usize {
    let mut row = vec![0usize; b.len() + 1];
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
        assert_eq!(
            longest_common_subsequence(&[1, 2, 3, 4], &[9, 1, 3, 9, 4]),
            3
        );
        assert_eq!(longest_common_subsequence(&[1], &[2]), 0);
        assert_eq!(rouge_l(&[1, 2], &[vec![1, 2]]), 1.0);
        assert_eq!(rouge_l(&[], &[vec![1]]), 0.0);
    }
}
