//! Generation against transformers' `generate(inputs_embeds=…)`: values of
//! `tests/reference/generate.py`.

mod fixture;

use blip2_lm::{CausalLm, GenerationConfig, Hypothesis, KvCache, LmError, Opt, generate};
use burn::tensor::{Device, Int, Tensor};
use fixture::{ints, load, read};
use serde::Deserialize;

/// Of a score. Up to 16 log-probabilities of about 1 to 10 are summed in f32; the model's logits
/// differ by 1e-6 of the largest. Measured: 2e-5.
const SCORE: f32 = 1e-4;

#[derive(Deserialize)]
struct Reference {
    prefixes: Vec<Vec<i64>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    config: GenerationConfig,
    rows: Vec<Vec<Text>>,
}

#[derive(Deserialize)]
struct Text {
    token_ids: Vec<u32>,
    score: f32,
}

#[derive(Clone, Copy, PartialEq)]
enum Padding {
    Left,
    Right,
}

fn reference() -> Reference {
    serde_json::from_slice(&read("generate/cases.json")).unwrap()
}

fn model() -> Opt {
    load(&read("opt/pre_norm.safetensors"), &Device::flex())
}

/// Embeddings and mask of prefixes of differing length.
fn batch(opt: &Opt, prefixes: &[Vec<i64>], side: Padding) -> (Tensor<3>, Tensor<2, Int>) {
    let longest = prefixes.iter().map(Vec::len).max().unwrap();
    let pad = |row: Vec<i64>| {
        let padding = vec![0; longest - row.len()];
        match side {
            Padding::Left => [padding, row].concat(),
            Padding::Right => [row, padding].concat(),
        }
    };
    let ids: Vec<_> = prefixes.iter().map(|row| pad(row.clone())).collect();
    let mask: Vec<_> = prefixes.iter().map(|row| pad(vec![1; row.len()])).collect();
    let device = Device::flex();
    (opt.embed(ints(&ids, &device)), ints(&mask, &device))
}

fn run(opt: &Opt, prefixes: &[Vec<i64>], config: &GenerationConfig) -> Vec<Vec<Hypothesis>> {
    let (embeds, mask) = batch(opt, prefixes, Padding::Left);
    generate(opt, embeds, mask, config).unwrap()
}

fn assert_same(actual: &[Hypothesis], expected: &[Hypothesis], what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (actual, expected) in actual.iter().zip(expected) {
        assert_eq!(actual.token_ids, expected.token_ids, "{what}");
        let difference = (actual.score - expected.score).abs();
        assert!(
            difference < SCORE * expected.score.abs().max(1.0),
            "{what}: {actual:?} {expected:?}"
        );
    }
}

#[test]
fn matches_transformers_generate_in_padded_batches() {
    let (reference, opt) = (reference(), model());
    assert!(reference.prefixes.len() >= 20);
    let (mut ended, mut cut, mut worst) = (0, 0, 0.0f32);
    for case in &reference.cases {
        for side in [Padding::Left, Padding::Right] {
            let (embeds, mask) = batch(&opt, &reference.prefixes, side);
            let rows = generate(&opt, embeds, mask, &case.config).unwrap();
            assert_eq!(rows.len(), case.rows.len());
            for (row, (actual, expected)) in rows.iter().zip(&case.rows).enumerate() {
                let what = format!("row {row} of {:?}", case.config);
                let expected: Vec<Hypothesis> = expected
                    .iter()
                    .map(|text| Hypothesis {
                        token_ids: text.token_ids.clone(),
                        score: text.score,
                    })
                    .collect();
                assert_same(actual, &expected, &what);
                for (actual, expected) in actual.iter().zip(&expected) {
                    worst = worst.max((actual.score - expected.score).abs());
                    match case
                        .config
                        .eos_token_ids
                        .contains(actual.token_ids.last().unwrap())
                    {
                        true => ended += 1,
                        false => cut += 1,
                    }
                }
            }
        }
    }
    println!("{ended} texts ended, {cut} were cut, scores differ by up to {worst:.1e}");
    assert!(
        ended > 100 && cut > 100,
        "both ways to end are covered: {ended} {cut}"
    );
}

#[test]
fn a_batch_gives_what_its_rows_alone_give() {
    let (reference, opt) = (reference(), model());
    let sampling = GenerationConfig {
        do_sample: true,
        temperature: 1.5,
        top_k: 20,
        top_p: 0.9,
        num_return_sequences: 3,
        max_new_tokens: 10,
        seed: 11,
        ..reference.cases[0].config.clone()
    };
    let configs = reference
        .cases
        .iter()
        .map(|case| &case.config)
        .chain([&sampling]);
    for config in configs {
        let together = run(&opt, &reference.prefixes, config);
        for (prefix, together) in reference.prefixes.iter().zip(&together) {
            let alone = run(&opt, std::slice::from_ref(prefix), config);
            assert_same(together, &alone[0], &format!("{config:?}"));
        }
    }
}

#[test]
fn samples_of_a_row_differ_and_follow_their_seed() {
    let (reference, opt) = (reference(), model());
    let mut config = GenerationConfig {
        do_sample: true,
        temperature: 3.0,
        num_return_sequences: 4,
        max_new_tokens: 12,
        ..Default::default()
    };
    let prefix = &reference.prefixes[3..4];
    let first = run(&opt, prefix, &config);
    assert_eq!(first, run(&opt, prefix, &config));
    for (i, text) in first[0].iter().enumerate() {
        assert!(
            first[0][..i]
                .iter()
                .all(|other| other.token_ids != text.token_ids)
        );
    }
    config.seed = 1;
    assert_ne!(first, run(&opt, prefix, &config));
}

#[test]
fn unusable_prompts_are_typed_errors() {
    let (opt, device) = (model(), Device::flex());
    let config = GenerationConfig::default();
    let prompt = |tokens| Tensor::<3>::zeros([2, tokens, 32], &device);
    let ones = |tokens| Tensor::<2, Int>::ones([2, tokens], &device);

    let error = generate(&opt, prompt(3), ones(4), &config).unwrap_err();
    assert!(
        matches!(
            error,
            LmError::Shape {
                tensor: "attention_mask",
                ..
            }
        ),
        "{error}"
    );
    let narrow = Tensor::<3>::zeros([2, 3, 31], &device);
    let error = generate(&opt, narrow, ones(3), &config).unwrap_err();
    assert!(
        matches!(
            error,
            LmError::Shape {
                tensor: "inputs_embeds",
                ..
            }
        ),
        "{error}"
    );
    let half_empty = ints(&[vec![0, 1], vec![0, 0]], &device);
    let error = generate(&opt, prompt(2), half_empty, &config).unwrap_err();
    assert_eq!(error, LmError::EmptyPrompt { row: 1 });

    // 40 positions: 11 of the prompt and 29 of 30 new tokens fit, and padding needs none.
    assert!(generate(&opt, prompt(11), ones(11), &config).is_ok());
    let (needed, available) = (41, 40);
    let error = generate(&opt, prompt(12), ones(12), &config).unwrap_err();
    assert_eq!(error, LmError::TooManyPositions { needed, available });
    let padded = ints(&vec![[vec![0; 30], vec![1; 11]].concat(); 2], &device);
    assert!(generate(&opt, prompt(41), padded, &config).is_ok());
}

#[test]
fn no_rows_give_no_texts() {
    let (opt, device) = (model(), Device::flex());
    for num_beams in [1, 3] {
        let config = GenerationConfig {
            num_beams,
            ..Default::default()
        };
        let embeds = Tensor::<3>::zeros([0, 4, 32], &device);
        let mask = Tensor::<2, Int>::zeros([0, 4], &device);
        assert_eq!(generate(&opt, embeds, mask, &config), Ok(Vec::new()));
    }
}

/// A model that breaks down at its third token, in its second row.
struct Breaking(Opt, f32);

impl CausalLm for Breaking {
    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        self.0.embed(input_ids)
    }

    fn forward(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let broken = attention_mask.dims()[1] == 6;
        let hidden = self.0.forward(inputs_embeds, attention_mask, cache);
        match broken {
            true => hidden.slice_fill([1..2, 0..1, 3..4], self.1),
            false => hidden,
        }
    }

    fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.0.logits(hidden)
    }

    fn cross_entropy(&self, hidden: Tensor<2>, ids: &[i64]) -> Tensor<1> {
        self.0.cross_entropy(hidden, ids)
    }

    fn hidden_size(&self) -> usize {
        self.0.hidden_size()
    }

    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    fn max_positions(&self) -> usize {
        self.0.max_positions()
    }
}

#[test]
fn logits_that_are_not_finite_are_a_typed_error() {
    for value in [f32::NAN, f32::INFINITY] {
        let lm = Breaking(model(), value);
        let prefixes = vec![vec![4, 5, 6, 7], vec![8, 9, 10, 11]];
        let (embeds, mask) = batch(&lm.0, &prefixes, Padding::Left);
        let error = generate(&lm, embeds, mask, &GenerationConfig::default()).unwrap_err();
        assert_eq!(error, LmError::NonFiniteLogits { row: 1, step: 2 });
    }
}
