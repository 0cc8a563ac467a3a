//! OPT against transformers' `OPTForCausalLM`: values of `tests/reference/opt.py`.

mod fixture;

use blip2_lm::{CausalLm, KvCache};
use burn::tensor::{Device, Int, Tensor};
use fixture::{ints, load, read, relative_error, tensor, values};
use safetensors::SafeTensors;

const MODELS: [&str; 2] = ["opt/pre_norm.safetensors", "opt/post_norm.safetensors"];

/// Of a layer's output, over its largest number. Sums of up to 48 products round differently in
/// torch and in Burn's matmul: some 2^-24 (6e-8) each, a few of them in a row. Measured: up to 7e-7.
const A_LAYER: f32 = 2e-6;

/// A cached step sums the same products in another order than the whole forward. Measured: 5e-7.
const CACHED: f32 = 2e-6;

/// A file's mask and inputs.
fn inputs(file: &SafeTensors, device: &Device) -> (Tensor<3>, Vec<Vec<i64>>) {
    let (mask, shape) = values(file, "mask");
    let mask = mask
        .chunks(shape[1])
        .map(|row| row.iter().map(|&x| x as i64).collect());
    (tensor(file, "inputs_embeds", device), mask.collect())
}

/// The numbers of the positions that are not padding: what stands at padding has no meaning.
fn at_tokens(values: &[f32], mask: &[Vec<i64>]) -> Vec<f32> {
    let mask = mask.concat();
    let width = values.len() / mask.len();
    let positions = values.chunks(width).zip(&mask);
    positions
        .filter(|(_, token)| **token == 1)
        .flat_map(|(values, _)| values.to_vec())
        .collect()
}

#[test]
fn matches_transformers_opt_at_every_layer() {
    let device = Device::default();
    for model in MODELS {
        let bytes = read(model);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let opt = load(&bytes, &device);
        let (embeds, mask) = inputs(&file, &device);
        let mut seen = 0;
        let mut compare = |name: &str, actual: &[f32]| {
            let (expected, _) = values(&file, name);
            let error = relative_error(&at_tokens(actual, &mask), &at_tokens(&expected, &mask));
            println!("{model} {name}: {error:.1e}");
            assert!(error < A_LAYER, "{model} {name}: {error}");
            seen += 1;
        };
        let mut tap = |name: &str, hidden: &Tensor<3>| {
            let hidden: Vec<f32> = hidden.clone().try_into_vec_as().unwrap();
            compare(&format!("tap.{name}"), &hidden);
        };
        let hidden = opt.forward_with_taps(embeds, ints(&mask, &device), None, &mut tap);
        let logits: Vec<f32> = opt.logits(hidden).try_into_vec_as().unwrap();
        compare("logits", &logits);
        assert_eq!(seen, 5, "embeddings, two layers, final, logits");
    }
}

#[test]
fn matches_transformers_token_embeddings() {
    let device = Device::default();
    for model in MODELS {
        let bytes = read(model);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let ids = tensor::<2>(&file, "ids", &device).int();
        let embedded: Vec<f32> = load(&bytes, &device).embed(ids).try_into_vec_as().unwrap();
        assert_eq!(embedded, values(&file, "embedded").0);
    }
}

/// Whatever the pieces in which tokens come, a cache gives what a whole forward gives.
#[test]
fn cached_pieces_match_a_whole_forward() {
    let device = Device::default();
    let cuts: [&[usize]; 5] = [
        &[9],
        &[1, 1, 1, 1, 1, 1, 1, 1, 1],
        &[4, 5],
        &[7, 1, 1],
        &[2, 3, 1, 3],
    ];
    for model in MODELS {
        let bytes = read(model);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let opt = load(&bytes, &device);
        let (embeds, mask) = inputs(&file, &device);
        let whole = opt.forward(embeds.clone(), ints(&mask, &device), None);
        let whole: Vec<f32> = whole.try_into_vec_as().unwrap();
        for pieces in cuts {
            let mut cache = KvCache::new();
            let mut hidden = Vec::new();
            for &piece in pieces {
                let past = cache.len();
                let seen: Vec<Vec<i64>> = mask
                    .iter()
                    .map(|row| row[..past + piece].to_vec())
                    .collect();
                let piece = embeds.clone().narrow(1, past, piece);
                hidden.push(opt.forward(piece, ints(&seen, &device), Some(&mut cache)));
                assert_eq!(cache.len(), seen[0].len());
                assert_eq!(cache.batch(), mask.len());
            }
            let hidden: Vec<f32> = Tensor::cat(hidden, 1).try_into_vec_as().unwrap();
            let error = relative_error(&at_tokens(&hidden, &mask), &at_tokens(&whole, &mask));
            println!("{model} {pieces:?}: {error:.1e}");
            assert!(error < CACHED, "{model} {pieces:?}: {error}");
        }
    }
}

/// A row gives the same with padding on the left, on the right and without.
#[test]
fn padding_changes_nothing() {
    let device = Device::default();
    let bytes = read(MODELS[0]);
    let opt = load(&bytes, &device);
    let ids = [5i64, 40, 17, 60, 33];
    let run = |left: usize, right: usize| -> Vec<f32> {
        let pad = |with: i64, row: &[i64]| {
            let row = [vec![with; left], row.to_vec(), vec![with; right]].concat();
            ints(&[row], &device)
        };
        let embeds = opt.embed(pad(1, &ids));
        let hidden = opt.forward(embeds, pad(0, &[1; 5]), None);
        hidden.narrow(1, left, ids.len()).try_into_vec_as().unwrap()
    };
    let alone = run(0, 0);
    for (left, right) in [(1, 0), (6, 0), (0, 4), (3, 2)] {
        let error = relative_error(&run(left, right), &alone);
        assert!(error < CACHED, "{left} {right}: {error}");
    }
}

/// Beams share a prompt: it is computed once and repeated.
#[test]
fn a_repeated_cache_matches_a_repeated_prompt() {
    let device = Device::default();
    let bytes = read(MODELS[0]);
    let opt = load(&bytes, &device);
    let prompt = [vec![5i64, 40, 17], vec![9, 22, 31]];
    let repeated: Vec<Vec<i64>> = prompt.iter().flat_map(|row| vec![row.clone(); 2]).collect();
    let next: Tensor<2, Int> = ints(&[vec![7], vec![8], vec![50], vec![51]], &device);

    let ones = |rows: usize, columns: usize| ints(&vec![vec![1; columns]; rows], &device);
    let mut cache = KvCache::new();
    opt.forward(
        opt.embed(ints(&prompt, &device)),
        ones(2, 3),
        Some(&mut cache),
    );
    cache.repeat_interleave(2);
    let shared = opt.forward(opt.embed(next.clone()), ones(4, 4), Some(&mut cache));

    let mut cache = KvCache::new();
    opt.forward(
        opt.embed(ints(&repeated, &device)),
        ones(4, 3),
        Some(&mut cache),
    );
    let apart = opt.forward(opt.embed(next), ones(4, 4), Some(&mut cache));
    let (shared, apart): (Vec<f32>, Vec<f32>) = (
        shared.try_into_vec_as().unwrap(),
        apart.try_into_vec_as().unwrap(),
    );
    assert!(relative_error(&shared, &apart) < CACHED);
}
