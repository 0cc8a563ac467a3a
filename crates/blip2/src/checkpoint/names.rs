//! Which tensor of a captioner each foreign key is.

use blip2_lm::opt::keymap as opt;
use blip2_qformer::keymap::Names as QFormerNames;
use blip2_vision::keymap::{Key, Names};

/// A part of `Blip2Caption`, in the order of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The image encoder.
    VisionBackbone,
    /// The LayerNorm after it.
    LnVision,
    /// The Q-Former with its queries.
    MultimodalBackbone,
    /// The projection to the language model.
    VisionNeck,
    /// The language model.
    TextBackbone,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 5] = [
        Self::VisionBackbone,
        Self::LnVision,
        Self::MultimodalBackbone,
        Self::VisionNeck,
        Self::TextBackbone,
    ];

    /// The field's name in the config and in `Blip2Caption`.
    pub fn name(self) -> &'static str {
        match self {
            Self::VisionBackbone => "vision_backbone",
            Self::LnVision => "ln_vision",
            Self::MultimodalBackbone => "multimodal_backbone",
            Self::VisionNeck => "vision_neck",
            Self::TextBackbone => "text_backbone",
        }
    }
}

/// A tensor of a captioner: our path inside a part.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The part.
    pub part: Part,
    /// The path in the part's module.
    pub path: String,
}

/// What a foreign key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// A tensor, or a third of one (see `blip2_vision::keymap::Key`).
    Weight(Address, Option<usize>),
    /// Nothing that captioning needs, and why.
    Dropped(&'static str),
    /// No name that the layout has.
    Unknown,
}

/// Whose names a checkpoint uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// transformers' `Blip2ForConditionalGeneration`.
    HuggingFace,
    /// LAVIS's `Blip2OPT`, with the names of EVA-ViT or of OpenAI's CLIP for its image encoder.
    Lavis(Names),
    /// mmpretrain's `Blip2Caption`.
    Mmpretrain,
    /// A language model alone: transformers' `OPTForCausalLM`.
    Opt,
    /// An image encoder alone.
    Vision(Names),
    /// Ours: `PART.PATH`.
    Native,
}

const TEXT_SIDE: &str = "the text side of stage 1, which captioning does not use";
const STAGE_ONE_HEADS: &str = "a head of stage 1, which captioning does not use";
const TIED: &str = "the output layer, which is the token embedding again";
const POSITION_IDS: &str = "a table of numbers that are known";
const BEYOND: &str = "not part of an image encoder as BLIP-2 uses it";

impl Layout {
    /// The layout whose names `keys` are, judged by names that only it has.
    pub fn detect<'a>(keys: impl Iterator<Item = &'a str> + Clone) -> Option<Self> {
        let any = |prefixes: &[&str]| {
            keys.clone()
                .any(|key| prefixes.iter().any(|prefix| key.starts_with(prefix)))
        };
        if any(&["Qformer.", "visual_encoder.", "opt_proj.", "opt_model."]) {
            let clip = any(&["visual_encoder.conv1.", "visual_encoder.transformer."]);
            return Some(Self::Lavis(if clip {
                Names::OpenAiClip
            } else {
                Names::Eva
            }));
        }
        // `text_backbone.embed_tokens` is ours, `text_backbone.model.decoder.…` is not.
        if any(&[
            "multimodal_backbone.bert.",
            "ln_vision_backbone.",
            "vision_neck.fc.",
        ]) {
            return Some(Self::Mmpretrain);
        }
        if any(&["multimodal_backbone.", "text_backbone.", "vision_neck."]) {
            return Some(Self::Native);
        }
        if any(&["qformer.", "language_projection.", "language_model."]) {
            return Some(Self::HuggingFace);
        }
        if any(&["model.decoder.", "decoder.layers."]) {
            return Some(Self::Opt);
        }
        // transformers 5 saves an image encoder alone without the name of its module.
        if any(&["vision_model.", "embeddings.patch_embedding."]) {
            let split = keys.clone().any(|key| key.contains(".self_attn.q_proj."));
            return Some(Self::Vision(if split { Names::Clip } else { Names::Blip2 }));
        }
        if any(&["visual.conv1.", "conv1.", "transformer.resblocks."]) {
            return Some(Self::Vision(Names::OpenAiClip));
        }
        if any(&["patch_embed.proj."]) {
            return Some(Self::Vision(Names::Eva));
        }
        if any(&["patch_embed.projection."]) {
            return Some(Self::Vision(Names::Mmpretrain));
        }
        if any(&["query_tokens"]) {
            return Some(Self::HuggingFace);
        }
        None
    }

    /// Whether the bias on attention's keys is left out of the image encoder; it is zero then.
    pub fn has_no_key_bias(self) -> bool {
        match self {
            Self::Lavis(names) | Self::Vision(names) => names.has_no_key_bias(),
            Self::Mmpretrain => true,
            _ => false,
        }
    }

    /// What `key` is.
    pub fn meaning(self, key: &str) -> Meaning {
        match self {
            Self::HuggingFace => hugging_face(key),
            Self::Lavis(names) => lavis(names, key),
            Self::Mmpretrain => mmpretrain(key),
            Self::Opt => language_model(key),
            Self::Vision(names) => vision(names, key),
            Self::Native => native(key),
        }
    }

    /// The keys that make up the tensor at `address`.
    pub fn keys(self, address: &Address) -> Vec<Key> {
        let path = address.path.as_str();
        let whole = |name: String| vec![Key { name, third: None }];
        let prefixed = |prefix: &str, keys: Vec<Key>| {
            keys.into_iter()
                .map(|key| Key {
                    name: format!("{prefix}{}", key.name),
                    ..key
                })
                .collect()
        };
        match (self, address.part) {
            (Self::Native, part) => whole(format!("{}.{path}", part.name())),
            (Self::Vision(names), _) => names.keys(path),
            (Self::Opt, _) => whole(opt::to_hugging_face(path)),

            (Self::HuggingFace, Part::VisionBackbone) => Names::Blip2.keys(path),
            (Self::HuggingFace, Part::LnVision) => whole(format!("{HF_LN}{}", torch_norm(path))),
            (Self::HuggingFace, Part::MultimodalBackbone) => {
                whole(QFormerNames::HuggingFace.key(path))
            }
            (Self::HuggingFace, Part::VisionNeck) => {
                whole(QFormerNames::HuggingFace.neck_key(path))
            }
            (Self::HuggingFace, Part::TextBackbone) => {
                whole(format!("{HF_LM}{}", opt::to_hugging_face(path)))
            }

            (Self::Lavis(names), Part::VisionBackbone) => {
                prefixed("visual_encoder.", names.keys(path))
            }
            (Self::Lavis(_), Part::LnVision) => whole(format!("{LAVIS_LN}{}", torch_norm(path))),
            (Self::Lavis(_), Part::MultimodalBackbone) => whole(QFormerNames::Lavis.key(path)),
            (Self::Lavis(_), Part::VisionNeck) => whole(QFormerNames::Lavis.neck_key(path)),
            (Self::Lavis(_), Part::TextBackbone) => {
                whole(format!("{LAVIS_LM}{}", opt::to_hugging_face(path)))
            }

            (Self::Mmpretrain, Part::VisionBackbone) => {
                prefixed("vision_backbone.", Names::Mmpretrain.keys(path))
            }
            (Self::Mmpretrain, Part::LnVision) => whole(format!("{MM_LN}{}", torch_norm(path))),
            (Self::Mmpretrain, Part::MultimodalBackbone) => {
                whole(QFormerNames::Mmpretrain.key(path))
            }
            (Self::Mmpretrain, Part::VisionNeck) => whole(QFormerNames::Mmpretrain.neck_key(path)),
            (Self::Mmpretrain, Part::TextBackbone) => {
                whole(format!("{MM_LM}{}", opt::to_hugging_face(path)))
            }
        }
    }
}

const HF_LN: &str = "vision_model.post_layernorm.";
const HF_LM: &str = "language_model.";
const LAVIS_LN: &str = "ln_vision.";
const LAVIS_LM: &str = "opt_model.";
const MM_LN: &str = "ln_vision_backbone.";
const MM_LM: &str = "text_backbone.";

fn hugging_face(key: &str) -> Meaning {
    if let Some(parameter) = key.strip_prefix(HF_LN) {
        return ln_vision(parameter);
    }
    if key.starts_with("vision_model.") {
        return vision(Names::Blip2, key);
    }
    if let Some(path) = QFormerNames::HuggingFace.locate(key) {
        return weight(Part::MultimodalBackbone, path);
    }
    if let Some(path) = QFormerNames::HuggingFace.locate_neck(key) {
        return weight(Part::VisionNeck, path);
    }
    if let Some(key) = key.strip_prefix(HF_LM) {
        return language_model(key);
    }
    if key.ends_with("position_ids") {
        return Meaning::Dropped(POSITION_IDS);
    }
    if QFormerNames::HuggingFace.locate_text(key).is_some()
        || key.starts_with("qformer.embeddings.")
    {
        return Meaning::Dropped(TEXT_SIDE);
    }
    if is_head(
        key,
        &[
            "vision_projection.",
            "text_projection.",
            "itm_head.",
            "logit_scale",
            "temp",
        ],
    ) {
        return Meaning::Dropped(STAGE_ONE_HEADS);
    }
    Meaning::Unknown
}

fn lavis(names: Names, key: &str) -> Meaning {
    if let Some(parameter) = key.strip_prefix(LAVIS_LN) {
        return ln_vision(parameter);
    }
    if let Some(key) = key.strip_prefix("visual_encoder.") {
        return vision(names, key);
    }
    if let Some(path) = QFormerNames::Lavis.locate(key) {
        return weight(Part::MultimodalBackbone, path);
    }
    if let Some(path) = QFormerNames::Lavis.locate_neck(key) {
        return weight(Part::VisionNeck, path);
    }
    if let Some(key) = key.strip_prefix(LAVIS_LM) {
        return language_model(key);
    }
    if key.ends_with("position_ids") {
        return Meaning::Dropped(POSITION_IDS);
    }
    if key.starts_with("Qformer.cls.") {
        return Meaning::Dropped(STAGE_ONE_HEADS);
    }
    if QFormerNames::Lavis.locate_text(key).is_some() {
        return Meaning::Dropped(TEXT_SIDE);
    }
    if is_head(key, &["vision_proj.", "text_proj.", "itm_head.", "temp"]) {
        return Meaning::Dropped(STAGE_ONE_HEADS);
    }
    Meaning::Unknown
}

fn mmpretrain(key: &str) -> Meaning {
    if let Some(parameter) = key.strip_prefix(MM_LN) {
        return ln_vision(parameter);
    }
    if let Some(key) = key.strip_prefix("vision_backbone.") {
        return vision(Names::Mmpretrain, key);
    }
    if let Some(path) = QFormerNames::Mmpretrain.locate(key) {
        return weight(Part::MultimodalBackbone, path);
    }
    if let Some(path) = QFormerNames::Mmpretrain.locate_neck(key) {
        return weight(Part::VisionNeck, path);
    }
    if let Some(key) = key.strip_prefix(MM_LM) {
        return language_model(key);
    }
    if key.ends_with("position_ids") {
        return Meaning::Dropped(POSITION_IDS);
    }
    if key.starts_with("data_preprocessor.") {
        return Meaning::Dropped("the mean and deviation of pixels, which the config holds");
    }
    if QFormerNames::Mmpretrain.locate_text(key).is_some() {
        return Meaning::Dropped(TEXT_SIDE);
    }
    Meaning::Unknown
}

fn language_model(key: &str) -> Meaning {
    if key == opt::TIED_OUTPUT {
        return Meaning::Dropped(TIED);
    }
    if key.ends_with("decoder.version") {
        return Meaning::Dropped(POSITION_IDS);
    }
    match opt::from_hugging_face(key) {
        Some(path) => weight(Part::TextBackbone, path),
        None => Meaning::Unknown,
    }
}

fn vision(names: Names, key: &str) -> Meaning {
    // OpenAI's files hold the text side as well, and prefix the image side.
    let key = key.strip_prefix("visual.").unwrap_or(key);
    let of_module = || names.locate(&format!("vision_model.{key}"));
    if let Some(place) = names.locate(key).or_else(of_module) {
        let part = Part::VisionBackbone;
        let path = place.path;
        return Meaning::Weight(Address { part, path }, place.third);
    }
    if key.ends_with("position_ids") {
        return Meaning::Dropped(POSITION_IDS);
    }
    let beyond = [
        "vision_model.post_layernorm.",
        "post_layernorm.",
        "visual_projection.",
        "text_projection",
        "text_model.",
        "logit_scale",
        "ln_post.",
        "proj",
        "token_embedding.",
        "ln_final.",
        "input_resolution",
        "context_length",
        "vocab_size",
        "norm.",
        "fc_norm.",
        "head.",
        "mask_token",
        "lm_head.",
    ];
    if beyond.iter().any(|prefix| key.starts_with(prefix)) {
        return Meaning::Dropped(BEYOND);
    }
    Meaning::Unknown
}

fn native(key: &str) -> Meaning {
    Part::ALL
        .into_iter()
        .find_map(|part| {
            let path = key.strip_prefix(part.name())?.strip_prefix('.')?;
            Some(weight(part, path.to_string()))
        })
        .unwrap_or(Meaning::Unknown)
}

fn ln_vision(parameter: &str) -> Meaning {
    match parameter {
        "weight" => weight(Part::LnVision, "gamma".into()),
        "bias" => weight(Part::LnVision, "beta".into()),
        _ => Meaning::Unknown,
    }
}

fn weight(part: Part, path: String) -> Meaning {
    Meaning::Weight(Address { part, path }, None)
}

fn torch_norm(path: &str) -> &str {
    match path {
        "gamma" => "weight",
        "beta" => "bias",
        other => other,
    }
}

fn is_head(key: &str, names: &[&str]) -> bool {
    names
        .iter()
        .any(|name| key == *name || name.ends_with('.') && key.starts_with(name))
}
