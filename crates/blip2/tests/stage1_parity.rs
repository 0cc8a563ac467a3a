//! Stage 1 against LAVIS's `Blip2Qformer` and transformers' `Blip2ForImageTextRetrieval`, on what
//! tests/reference/stage1.py made.

#[path = "../../blip2-vision/tests/fixture/mod.rs"]
mod fixture;
#[path = "../../blip2-vision/tests/fixture/gradients.rs"]
mod gradients;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blip2::checkpoint::export::ExportFormat;
use blip2::checkpoint::names::{Address, Layout, Part};
use blip2::checkpoint::{Precision, Stage1Import, export_stage1, load_stage1_parts};
use blip2::stage1::{Blip2Qformer, Blip2QformerConfig, HardNegatives, Negatives, SameImage};
use blip2::{Compute, TowerConfig};
use blip2_data::CaptionSample;
use blip2_data::transforms::{ImageProcessorConfig, Resample};
use blip2_qformer::{QFormerConfig, QFormerTextConfig};
use blip2_vision::VisionConfig;
use blip2_vision::keymap::Names;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use fixture::Fixture;
use serde::Deserialize;

/// f32 against f64, of losses near 1 to 4. Measured: 2e-7 at worst.
const LOSS_TOLERANCE: f64 = 1e-6;

/// Of the largest value of each gradient; they pass three layers and three objectives. Measured: 1.7e-5
/// at worst, of a bias whose gradients nearly cancel.
const GRADIENT_TOLERANCE: f64 = 5e-5;

/// Scores of a whole model, f32 on both sides. Measured: 7e-7 at worst.
const SCORE_TOLERANCE: f64 = 3e-6;

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/reference/stage1")
        .join(name)
}

#[derive(Deserialize)]
struct Given {
    images: Vec<usize>,
    texts: Vec<usize>,
}

#[derive(Deserialize)]
struct Inputs {
    texts: Vec<String>,
    #[serde(default)]
    image_ids: Vec<u64>,
    negatives: Option<Given>,
}

impl Inputs {
    fn samples(&self) -> Vec<CaptionSample> {
        let pairs = self.texts.iter().zip(&self.image_ids);
        pairs
            .map(|(text, id)| CaptionSample {
                image_id: id.to_string(),
                text: Some(text.clone()),
                ..CaptionSample::default()
            })
            .collect()
    }

    fn negatives(&self) -> Negatives {
        let given = self.negatives.as_ref().unwrap();
        let some = |indices: &[usize]| indices.iter().map(|&index| Some(index)).collect();
        Negatives::Given(HardNegatives {
            images: some(&given.images),
            texts: some(&given.texts),
        })
    }
}

/// The dimensions of `lavis.pth`, whose image embeddings are given.
fn config(same_image: SameImage) -> Blip2QformerConfig {
    Blip2QformerConfig {
        vision_backbone: TowerConfig {
            frozen: true,
            weights: None,
            dtype: Precision::F32,
            compute: Compute::F32,
            architecture: Some(VisionConfig {
                hidden_size: 20,
                num_attention_heads: 2,
                num_hidden_layers: 1,
                intermediate_size: 8,
                image_size: 28,
                patch_size: 14,
                ..blip2_vision::presets::eva_vit_g_14(28)
            }),
        },
        ln_vision_eps: 1e-5,
        multimodal_backbone: QFormerConfig {
            num_query_tokens: 4,
            hidden_size: 64,
            num_hidden_layers: 3,
            num_attention_heads: 1,
            intermediate_size: 36,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            text: Some(QFormerTextConfig {
                vocab_size: 21,
                max_position_embeddings: 10,
                pad_token_id: 0,
            }),
            ..QFormerConfig::bert_base(20)
        },
        multimodal_compute: Compute::F32,
        recompute_vision_backbone: false,
        bert: None,
        tokenizer: reference("vocab.txt"),
        embed_dim: 12,
        max_txt_len: 8,
        temperature: 0.07,
        label_smoothing: 0.1,
        same_image,
        data_preprocessor: ImageProcessorConfig {
            size: [28, 28],
            resample: Resample::Bicubic,
            image_mean: [0.5; 3],
            image_std: [0.5; 3],
        },
        init_cfg: None,
    }
}

fn from_lavis(same_image: SameImage, device: &Device) -> Blip2Qformer {
    let model = config(same_image).init(device).unwrap();
    load_stage1_parts(model, &reference("lavis.pth"), device).unwrap()
}

/// LAVIS's name of our parameter.
fn lavis_key(path: &str) -> String {
    let (part, path) = path.split_once('.').unwrap();
    let part = match part {
        "ln_vision" => Part::LnVision,
        "multimodal_backbone" => Part::MultimodalBackbone,
        "heads" => Part::Heads,
        other => panic!("{other}"),
    };
    let path = path.to_string();
    let keys = Layout::Lavis(Names::Eva).keys(&Address { part, path });
    keys[0].name.clone()
}

fn check_losses_and_gradients(case: &str, same_image: SameImage) {
    let device = Device::default().autodiff();
    let fixture = Fixture::read(&format!("stage1/lavis_{case}.safetensors"));
    let inputs: Inputs = fixture.config();
    let model = from_lavis(same_image, &device);
    let images: Tensor<3> = fixture.tensor("input.image_embeds", &device);
    let losses = model
        .loss(images, &inputs.samples(), &inputs.negatives())
        .unwrap();
    for (name, loss) in [
        ("loss_itc", &losses.loss_itc),
        ("loss_itm", &losses.loss_itm),
        ("loss_lm", &losses.loss_lm),
        ("loss", &losses.loss),
    ] {
        fixture.check(&format!("output.{name}"), loss.clone(), LOSS_TOLERANCE);
    }
    let gradients = losses.loss.backward();
    let checked = fixture.check_gradients(&model, &gradients, lavis_key, GRADIENT_TOLERANCE);
    // The output layer is the word embedding, whose gradient it shares.
    let expected: Vec<String> = fixture.names("grad.").into_iter().collect();
    assert_eq!(checked.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn matches_lavis_losses_and_gradients_of_pre_training() {
    check_losses_and_gradients("pretrain", SameImage::Negative);
}

#[test]
fn matches_lavis_losses_and_gradients_of_retrieval_where_images_repeat() {
    check_losses_and_gradients("retrieval", SameImage::Positive);
}

#[test]
fn the_own_negatives_are_wrong_pairs_and_one_pair_alone_has_none() {
    let device = Device::default().autodiff();
    let fixture = Fixture::read("stage1/lavis_pretrain.safetensors");
    let inputs: Inputs = fixture.config();
    let images: Tensor<3> = fixture.tensor("input.image_embeds", &device);
    let (model, samples) = (from_lavis(SameImage::Negative, &device), inputs.samples());
    let loss = |negatives: &Negatives, pairs: usize| {
        let images = images.clone().narrow(0, 0, pairs);
        let losses = model.loss(images, &samples[..pairs], negatives).unwrap();
        losses.loss_itm.into_scalar::<f32>()
    };
    let given = loss(&inputs.negatives(), 5);
    let hardest = loss(&Negatives::Hardest, 5);
    assert_ne!(given, hardest);
    assert_eq!(hardest, loss(&Negatives::Hardest, 5), "nothing is drawn");
    assert!(loss(&Negatives::Sampled, 5).is_finite());
    assert!(loss(&Negatives::Sampled, 1).is_finite());
}

#[test]
fn matches_transformers_retrieval_scores_and_features() {
    let device = Device::default();
    let folder = reference("hugging_face");
    let checkpoint = Stage1Import {
        path: folder,
        ..Stage1Import::default()
    }
    .open()
    .unwrap();
    let model = checkpoint.load(&device, Precision::Stored, None).unwrap();
    let fixture = Fixture::read("stage1/hugging_face/expected.safetensors");
    check_scores(&model, &fixture);
    assert!(model.heads.cls.is_none(), "transformers has no words");
    let error = model
        .loss(
            fixture
                .tensor::<4>("input.pixel_values", &device)
                .narrow(0, 0, 1),
            &[CaptionSample {
                text: Some("a dog".into()),
                ..CaptionSample::default()
            }],
            &Negatives::Hardest,
        )
        .unwrap_err();
    assert!(error.to_string().contains("no language head"), "{error}");
}

fn check_scores(model: &Blip2Qformer, fixture: &Fixture) {
    let inputs: Inputs = fixture.config();
    let texts: Vec<&str> = inputs.texts.iter().map(String::as_str).collect();
    let device = Device::default();
    let pixels: Tensor<4> = fixture.tensor("input.pixel_values", &device);
    let [images, ..] = pixels.dims();
    let features = model.image_features(pixels);
    let text_features = model.text_features(&texts).unwrap();
    let tolerance = SCORE_TOLERANCE;
    fixture.check("output.image_embeds", features.features.clone(), tolerance);
    fixture.check("output.text_embeds", text_features.clone(), tolerance);
    let itc = Blip2Qformer::similarity(features.features, text_features);
    fixture.check("output.itc", itc, tolerance);
    let pairs: Vec<(usize, usize)> = (0..images)
        .flat_map(|image| (0..texts.len()).map(move |text| (image, text)))
        .collect();
    let itm = model
        .matching(&features.image_embeds, &texts, &pairs)
        .unwrap();
    let itm = itm.reshape([images, texts.len(), 2]);
    fixture.check("output.itm", itm, tolerance);
}

#[test]
fn what_is_written_is_read_again_in_every_format() {
    let device = Device::default();
    let fixture = Fixture::read("stage1/hugging_face/expected.safetensors");
    let open = |path: &Path| {
        Stage1Import {
            path: path.to_path_buf(),
            ..Stage1Import::default()
        }
        .open()
    };
    let checkpoint = open(&reference("hugging_face")).unwrap();
    let model = checkpoint.load(&device, Precision::Stored, None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [
        ("huggingface", ExportFormat::HuggingFace),
        ("lavis", ExportFormat::Lavis),
        ("burnpack", ExportFormat::Burnpack),
    ] {
        let to = folder.path().join(name);
        let progress: blip2::checkpoint::Progress = Arc::new(|_, _| {});
        export_stage1(&model, &checkpoint.processor, &to, format, None, &progress).unwrap();
        let again = open(&to).unwrap();
        assert_eq!(again.architecture, checkpoint.architecture, "{name}");
        check_scores(
            &again.load(&device, Precision::Stored, None).unwrap(),
            &fixture,
        );
    }
}

/// The dimensions of `stage1/bert`, and one word more.
fn bert_config() -> Blip2QformerConfig {
    let mut config = config(SameImage::Negative);
    config.bert = Some(reference("bert"));
    let qformer = &mut config.multimodal_backbone;
    qformer.hidden_size = 16;
    qformer.num_hidden_layers = 2;
    qformer.num_attention_heads = 2;
    qformer.intermediate_size = 28;
    config
}

#[test]
fn matches_lavis_q_former_that_starts_from_bert() {
    let device = Device::default();
    let fixture = Fixture::read("stage1/bert/expected.safetensors");
    let model = bert_config().init(&device).unwrap();
    let ids = fixture.tensor::<2>("input.ids", &device).int();
    let text = model
        .multimodal_backbone
        .forward_text(ids.clone(), ids.ones_like());
    fixture.check("output.hidden", text.clone(), SCORE_TOLERANCE);

    // How much likelier one word is than another does not depend on the word that is new.
    let cls = model.heads.cls.as_ref().unwrap();
    let words = model.multimodal_backbone.text_embeddings().unwrap().words();
    let expected: Tensor<3> = fixture.tensor("output.log_probabilities", &device);
    let [_, _, count] = expected.dims();
    let (first, expected) = (text.slice([0..1, 0..1]), expected.slice([0..1, 0..1]));
    let first = first.flatten::<2>(0, 1);
    let expected: Vec<f32> = expected.into_data().iter::<f32>().collect();
    let loss = |word: usize| {
        let loss = cls.loss(first.clone(), words.clone(), &[word as i64], 0.0);
        loss.into_scalar::<f32>()
    };
    for word in 1..count {
        let difference = (loss(0) - loss(word)) - (expected[word] - expected[0]);
        // Logits of about 10 in f32.
        assert!(difference.abs() < 1e-5, "{word}: {difference}");
    }

    // The queries' feed-forward starts as the text's; queries and the way to the image are new.
    let weights = weights_of(&model.multimodal_backbone);
    for (path, values) in &weights {
        let text = path.replace("_query.", ".");
        assert_eq!(values, &weights[&text], "{path}");
    }
    let other = weights_of(&bert_config().init(&device).unwrap().multimodal_backbone);
    for (path, values) in &weights {
        let fresh =
            path == "query_tokens" || path.contains("crossattention") && path.ends_with("weight");
        if fresh {
            assert_ne!(values, &other[path], "{path}");
        } else if !path.contains("word_embeddings") {
            assert_eq!(values, &other[path], "{path}");
        }
    }
}

fn weights_of<M: Module>(module: &M) -> BTreeMap<String, Vec<f32>> {
    #[derive(Default)]
    struct Reader(Vec<String>, BTreeMap<String, Vec<f32>>);

    impl ModuleVisitor for Reader {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.push(name.to_string());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = param.val().into_data().iter::<f32>().collect();
            self.1.insert(self.0.join("."), values);
        }
    }

    let mut reader = Reader::default();
    module.visit(&mut reader);
    reader.1
}

#[test]
fn a_bert_of_another_size_or_none_at_all_is_an_error_that_names_the_key() {
    let device = Device::default();
    type Change = fn(&mut Blip2QformerConfig);
    let cases: [(&str, Change); 4] = [
        (
            "LayerNorm.bias`: expected shape [32], found [16]",
            |config| {
                config.multimodal_backbone.hidden_size = 32;
            },
        ),
        (
            "no BERT of 3 layers: it lacks bert.encoder.layer.2",
            |config| {
                config.multimodal_backbone.num_hidden_layers = 3;
            },
        ),
        ("no BERT of 2 layers: it lacks bert.", |config| {
            config.bert = Some(reference("lavis.pth"));
        }),
        ("vocab_size", |config| {
            let text = config.multimodal_backbone.text.as_mut().unwrap();
            text.vocab_size = 20;
        }),
    ];
    for (expected, change) in cases {
        let mut config = bert_config();
        change(&mut config);
        let error = config.init(&device).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_captioner_is_no_model_of_stage_1() {
    let captioner = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/blip2/plain");
    let import = Stage1Import {
        path: captioner,
        ..Stage1Import::default()
    };
    let error = import.open().unwrap_err();
    assert!(error.to_string().contains("no model of stage 1"), "{error}");
}
