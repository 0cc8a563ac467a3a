//! The walk against the modules, and against counts by hand.

use std::path::{Path, PathBuf};

use blip2_lm::opt::presets::opt_125m;
use blip2_qformer::{QFormerConfig, QFormerTextConfig};
use blip2_vision::VisionConfig;
use burn::module::Module;
use burn::tensor::Device;

use super::dry_run::{Kernels, Tape};
use super::memory::Memory;
use super::model::{Batch, Model, Step};
use super::parameters::Parameters;
use super::towers::{Keeping, Tower};
use super::work::{Direction, Operation, Part};
use super::workload::Workload;
use crate::recipe::Recipe;
use crate::recipe_file;

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs")
}

fn recipe(name: &str, set: &[&str]) -> Recipe {
    let set: Vec<String> = set.iter().map(ToString::to_string).collect();
    recipe_file::look_at(&configs().join(name), &set).unwrap()
}

fn step(workload: &Workload) -> Step {
    let batch = workload.usual(workload.batch);
    workload.model.step(&batch, Kernels::Fused)
}

fn flops(step: &Step, part: Part, direction: Direction) -> f64 {
    let of_part = |work: &super::work::Work| work.part == part && work.direction == direction;
    let all = step.tape.work().iter().filter(|(work, _)| of_part(work));
    all.map(|(work, &count)| work.operation.flops() * count as f64)
        .sum()
}

/// Walks through a tower alone.
fn walked(part: Part, keeping: &Keeping, walk: impl FnOnce(&mut Tower<'_>)) -> (Tape, Parameters) {
    let (mut tape, mut parameters) = (Tape::new(Kernels::Fused), Parameters::default());
    walk(&mut Tower {
        tape: &mut tape,
        parameters: &mut parameters,
        part,
        keeping,
    });
    (tape, parameters)
}

fn vision() -> VisionConfig {
    VisionConfig {
        image_size: 8,
        patch_size: 4,
        num_channels: 3,
        hidden_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 20,
        hidden_act: blip2_vision::Activation::Gelu,
        layer_norm_eps: 1e-6,
        qkv_bias: true,
        patch_bias: true,
        pre_layernorm: false,
        drop_path_rate: 0.0,
    }
}

#[test]
fn parameters_that_the_walk_meets_are_those_of_the_modules() {
    let (device, trained) = (Device::default(), Keeping::trained());
    for (qkv_bias, patch_bias, pre_layernorm) in [(true, true, false), (false, false, true)] {
        let config = VisionConfig {
            qkv_bias,
            patch_bias,
            pre_layernorm,
            ..vision()
        };
        let (_, parameters) = walked(Part::VisionBackbone, &trained, |tower| {
            tower.vision(&config, 2);
        });
        let module = config.init(&device).unwrap();
        assert_eq!(
            parameters.numbers(Part::VisionBackbone),
            module.num_params()
        );
    }
    for (frequency, text) in [(1, false), (2, true), (3, false)] {
        let config = QFormerConfig {
            num_query_tokens: 5,
            hidden_size: 12,
            num_hidden_layers: 3,
            num_attention_heads: 3,
            intermediate_size: 20,
            cross_attention_frequency: frequency,
            text: text.then_some(QFormerTextConfig {
                vocab_size: 20,
                max_position_embeddings: 9,
                pad_token_id: 0,
            }),
            ..QFormerConfig::bert_base(10)
        };
        let (_, parameters) = walked(Part::MultimodalBackbone, &trained, |tower| {
            let image = tower.tape.constant(2 * 7, 10);
            let keys = tower.image_keys(&config, &image);
            let queries = tower.queries(&config, 2);
            let image = super::towers::Image::Keys(&keys);
            tower.read_image(&config, queries, 2, image, 0);
            if let Some(text) = &config.text {
                let words = tower.text(&config, text, 2 * 4, None);
                tower.read_text(&config, words, 2, None);
            }
        });
        let module = config.init(&device).unwrap();
        assert_eq!(
            parameters.numbers(Part::MultimodalBackbone),
            module.num_params()
        );
    }
    for (narrow, before, bias) in [(12, true, true), (6, false, true), (12, true, false)] {
        let config = blip2_lm::OptConfig {
            vocab_size: 29,
            hidden_size: 12,
            num_hidden_layers: 2,
            num_attention_heads: 3,
            ffn_dim: 20,
            max_position_embeddings: 24,
            word_embed_proj_dim: narrow,
            do_layer_norm_before: before,
            enable_bias: bias,
            ..opt_125m()
        };
        let (_, parameters) = walked(Part::TextBackbone, &trained, |tower| {
            let words = tower.embed(&config, 8);
            let mut hidden = tower.enter(&config, words);
            for index in 0..config.num_hidden_layers {
                hidden = tower.decoder_layer(&config, index, hidden, 2, &mut |_, keys| keys);
            }
            tower.leave(&config, hidden);
        });
        let module = config.init(&device).unwrap();
        assert_eq!(parameters.numbers(Part::TextBackbone), module.num_params());
    }
}

/// Adapters included: their targets are found by the names that the walk gives.
#[test]
fn every_recipe_learns_as_many_numbers_as_its_model() {
    let device = Device::default().autodiff();
    for entry in std::fs::read_dir(configs().join("debug")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let recipe = recipe(&format!("debug/{name}"), &[]);
        let step = step(&Workload::new(&recipe, false).unwrap());
        let learned = match (&recipe.model, &recipe.stage1) {
            (Some(config), _) => {
                let model = config.init(&device).unwrap();
                let model = model.with_lora(&config.lora, &device).unwrap();
                let numbers = step.parameters.numbers(Part::TextBackbone);
                let adapters: usize = model
                    .adapted_layers()
                    .iter()
                    .map(blip2::lora::AdaptedLayer::num_params)
                    .sum();
                let text = model.architecture().text.num_params();
                assert_eq!(numbers, text + adapters, "{name}");
                learned_numbers(&model)
            }
            (_, Some(config)) => learned_numbers(&config.init(&device).unwrap()),
            _ => continue,
        };
        assert_eq!(step.parameters.learned(), learned, "{name}");
    }
}

/// What an optimizer sees of a module.
fn learned_numbers<M: Module>(module: &M) -> usize {
    struct Count(usize);
    impl burn::module::ModuleVisitor for Count {
        fn visit_float<const D: usize>(
            &mut self,
            param: &burn::module::Param<burn::tensor::Tensor<D>>,
        ) {
            self.0 += param.lazy_shape().num_elements();
        }
    }
    let mut count = Count(0);
    module.visit(&mut count);
    count.0
}

#[test]
fn products_of_an_image_encoder_are_counted_as_by_hand() {
    let config = vision();
    let (tape, _) = walked(Part::VisionBackbone, &Keeping::frozen(), |tower| {
        tower.vision(&config, 7);
    });
    let flops: f64 = tape
        .work()
        .iter()
        .map(|(work, &count)| work.operation.flops() * count as f64)
        .sum();
    // 7 images of 4 patches and a class token; patches of 3 · 4 · 4 numbers.
    let (rows, width, inner) = (7.0 * 5.0, 12.0, 20.0);
    let patches = 2.0 * 7.0 * 4.0 * 48.0 * width;
    let linear = 2.0 * rows * (3.0 * width * width + width * width + 2.0 * width * inner);
    let attention = 2.0 * 2.0 * rows * 5.0 * width;
    assert_eq!(flops, patches + 2.0 * (linear + attention));
    assert!(
        tape.work()
            .keys()
            .all(|work| work.direction == Direction::Forward)
    );
}

/// A frozen language model passes gradients through its products and makes none for its weights.
#[test]
fn backward_of_a_frozen_language_model_costs_its_products_once_more() {
    let recipe = recipe(
        "debug/caption_coco_opt2.7b.toml",
        &["model.recompute_text_backbone=false"],
    );
    let workload = Workload::new(&recipe, false).unwrap();
    let products = |step: &Step, direction| {
        let of_text = step.tape.work().iter().filter(|(work, _)| {
            let product = matches!(work.operation, Operation::Product(_));
            work.part == Part::TextBackbone && work.direction == direction && product
        });
        of_text
            .map(|(work, &count)| work.operation.flops() * count as f64)
            .sum::<f64>()
    };
    let frozen = step(&workload);
    let forward = products(&frozen, Direction::Forward);
    assert_eq!(products(&frozen, Direction::Backward), forward);
    let Model::Caption(mut model) = workload.model.clone() else {
        panic!("a captioner")
    };
    model.text.1.learns = true;
    let trained = step(&Workload {
        model: Model::Caption(model),
        ..workload
    });
    assert_eq!(products(&trained, Direction::Backward), 2.0 * forward);
}

#[test]
fn cached_features_leave_out_the_image_encoder_but_not_its_weights() {
    let with = |cache: &str| {
        let set = format!("features.cache={cache}");
        let recipe = recipe("emoji-scenes.toml", &[&set]);
        step(&Workload::new(&recipe, false).unwrap())
    };
    let (cached, whole) = (with("memory"), with("none"));
    let forward = |step: &Step| flops(step, Part::VisionBackbone, Direction::Forward);
    assert_eq!(forward(&cached), 0.0);
    assert!(forward(&whole) > 0.0);
    let numbers = |step: &Step| step.parameters.numbers(Part::VisionBackbone);
    assert_eq!(numbers(&cached), numbers(&whole));
}

#[test]
fn recomputation_keeps_the_memory_of_one_layer() {
    let with = |recompute: bool| {
        let set = format!("model.recompute_text_backbone={recompute}");
        // So that the language model's graph is most of what there is.
        let recipe = recipe(
            "debug/caption_coco_opt2.7b.toml",
            &[
                &set,
                "train.batch_size=64",
                "model.text_backbone.weights=hf://facebook/none",
                "model.text_backbone.architecture={vocab_size=448, hidden_size=128, \
             num_hidden_layers=24, num_attention_heads=4, ffn_dim=512, \
             max_position_embeddings=256, word_embed_proj_dim=128}",
            ],
        );
        step(&Workload::new(&recipe, false).unwrap())
    };
    let (whole, recomputed) = (with(false), with(true));
    assert!(recomputed.tape.peak() * 2 < whole.tape.peak());
    let forward = |step: &Step| flops(step, Part::TextBackbone, Direction::Forward);
    // What stands before and behind the layers is not run again; here it multiplies nothing, and the logits do.
    let (once, twice) = (forward(&whole), forward(&recomputed));
    assert!(1.9 * once < twice && twice <= 2.0 * once, "{once}, {twice}");
}

/// Of f32: a quarter in eight bits, an eighth in four, scales besides; embeddings stay in bfloat16.
#[test]
fn weights_in_fewer_bits_take_as_much_less() {
    let bytes = |dtype: &str| {
        let set = format!("model.text_backbone.dtype={dtype}");
        let architecture = "model.text_backbone.architecture={vocab_size=448, hidden_size=128, \
                            num_hidden_layers=24, num_attention_heads=4, ffn_dim=512, \
                            max_position_embeddings=256, word_embed_proj_dim=128}";
        let weights = "model.text_backbone.weights=hf://facebook/none";
        let recipe = recipe("emoji-scenes.toml", &[&set, weights, architecture]);
        let workload = Workload::new(&recipe, false).unwrap();
        step(&workload).parameters.bytes(Part::TextBackbone)
    };
    let (embeddings, linear) = ((448 + 258) * 128, 24 * (4 * 128 * 128 + 2 * 128 * 512));
    let vectors = bytes("f32") - 4 * (embeddings + linear);
    assert_eq!(bytes("bf16"), vectors + 2 * (embeddings + linear));
    let eight = linear + linear / 64 * 4;
    assert_eq!(bytes("int8"), vectors + 2 * embeddings + eight);
    let four = linear / 2 + linear / 32 * 4;
    assert_eq!(bytes("int4"), vectors + 2 * embeddings + four);
}

/// Of an image encoder that learns, blocks' inputs wait for the backward pass and little else.
#[test]
fn recomputation_of_the_image_encoder_keeps_the_inputs_of_blocks() {
    let with = |recompute: bool| {
        let set = format!("model.recompute_vision_backbone={recompute}");
        let sets = [
            set.as_str(),
            "model.vision_backbone.frozen=false",
            "features.cache=none",
            "train.batch_size=64",
        ];
        step(&Workload::new(&recipe("emoji-scenes.toml", &sets), false).unwrap())
    };
    let (whole, recomputed) = (with(false), with(true));
    let kept = |step: &Step| step.kept[&Part::VisionBackbone];
    assert!(kept(&recomputed) * 8 < kept(&whole));
    // Gradients of weights, Q-Former and language model are in both.
    assert!(recomputed.tape.peak() * 3 < whole.tape.peak() * 2);
    assert_eq!(recomputed.parameters.learned(), whole.parameters.learned());
    let done = |step: &Step, direction| flops(step, Part::VisionBackbone, direction);
    let (once, twice) = (
        done(&whole, Direction::Forward),
        done(&recomputed, Direction::Forward),
    );
    // All but the patches' projection.
    assert!(1.9 * once < twice && twice < 2.0 * once);
    assert_eq!(
        done(&whole, Direction::Backward),
        done(&recomputed, Direction::Backward)
    );
}

#[test]
fn memory_grows_with_the_batch_and_names_its_parts() {
    let workload = Workload::new(&recipe("emoji-scenes.toml", &[]), false).unwrap();
    let of = |batch| {
        let step = workload
            .model
            .step(&workload.largest(batch), Kernels::Fused);
        Memory::new(&workload, batch, &step, Kernels::Fused)
    };
    let (one, many) = (of(1), of(64));
    assert!(one.phases[0].bytes < many.phases[0].bytes);
    for part in [
        "weights, language model",
        "gradients",
        "activations, Q-Former",
    ] {
        assert!(many.items.iter().any(|item| item.what == part), "{part}");
    }
}

#[test]
fn a_batch_of_more_images_does_as_much_more() {
    let workload = Workload::new(
        &recipe("emoji-scenes.toml", &["features.cache=none"]),
        false,
    );
    let workload = workload.unwrap();
    let batch = |images| Batch {
        images,
        tokens: 20,
        scored: 10.0,
        cached: false,
    };
    let all = |images| {
        let step = workload.model.step(&batch(images), Kernels::Fused);
        let parts = [
            Part::VisionBackbone,
            Part::MultimodalBackbone,
            Part::TextBackbone,
            Part::Head,
        ];
        let one =
            |part| flops(&step, part, Direction::Forward) + flops(&step, part, Direction::Backward);
        parts.map(one).iter().sum::<f64>()
    };
    assert_eq!(all(6), 3.0 * all(2));
}
