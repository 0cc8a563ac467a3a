//! Which tensor of a captioner each foreign key is.

use blip2_lm::opt::keymap as opt;
use blip2_qformer::keymap::Names as QFormerNames;
use blip2_vision::keymap::{Key, Names};

use super::stage1::names as stage1;

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
    /// The heads of stage 1, which a captioner has not.
    Heads,
}

impl Part {
    /// All parts of a captioner.
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
            Self::Heads => "heads",
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

pub(super) const TEXT_SIDE: &str = "the text side of stage 1, which captioning does not use";
pub(super) const STAGE_ONE_HEADS: &str = "a head of stage 1, which captioning does not use";
pub(super) const TIED: &str = "the output layer, which is the token embedding again";
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
        if any(&[
            "multimodal_backbone.",
            "text_backbone.",
            "vision_neck.",
            "heads.",
        ]) {
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
            Self::HuggingFace => HUGGING_FACE.meaning(Names::Blip2, key),
            Self::Lavis(names) => LAVIS.meaning(names, key),
            Self::Mmpretrain => MMPRETRAIN.meaning(Names::Mmpretrain, key),
            Self::Opt => language_model(key),
            Self::Vision(names) => vision(names, key),
            Self::Native => native(key),
        }
    }

    /// The keys that make up the tensor at `address`.
    pub fn keys(self, address: &Address) -> Vec<Key> {
        let path = address.path.as_str();
        let whole = |name: String| vec![Key { name, third: None }];
        let (project, names) = match self {
            Self::Native => return whole(format!("{}.{path}", address.part.name())),
            Self::Vision(names) => return names.keys(path),
            Self::Opt => return whole(opt::to_hugging_face(path)),
            Self::HuggingFace => (&HUGGING_FACE, Names::Blip2),
            Self::Lavis(names) => (&LAVIS, names),
            Self::Mmpretrain => (&MMPRETRAIN, Names::Mmpretrain),
        };
        match address.part {
            Part::VisionBackbone => {
                let mut keys = names.keys(path);
                for key in &mut keys {
                    key.name.insert_str(0, project.vision_prefix);
                }
                keys
            }
            Part::LnVision => whole(format!("{}{}", project.ln_vision, torch_norm(path))),
            Part::MultimodalBackbone => whole(project.qformer.key(path)),
            Part::VisionNeck => whole(project.qformer.neck_key(path)),
            Part::TextBackbone => whole(format!(
                "{}{}",
                project.language_model,
                opt::to_hugging_face(path)
            )),
            Part::Heads => whole(stage1::head_key(self, path)),
        }
    }
}

/// How a project names the parts of a whole captioner.
struct Project {
    /// What every key of the image encoder begins with.
    vision_marker: &'static str,
    /// What of it stands before the encoder's own names.
    vision_prefix: &'static str,
    ln_vision: &'static str,
    qformer: QFormerNames,
    language_model: &'static str,
    /// Keys, or beginnings that end with a full stop, that captioning does not need, and why.
    dropped: &'static [(&'static str, &'static str)],
}

static HUGGING_FACE: Project = Project {
    vision_marker: "vision_model.",
    // The encoder's own names begin so, too.
    vision_prefix: "",
    ln_vision: "vision_model.post_layernorm.",
    qformer: QFormerNames::HuggingFace,
    language_model: "language_model.",
    dropped: &[
        ("qformer.embeddings.", TEXT_SIDE),
        ("vision_projection.", STAGE_ONE_HEADS),
        ("text_projection.", STAGE_ONE_HEADS),
        ("itm_head.", STAGE_ONE_HEADS),
        ("logit_scale", STAGE_ONE_HEADS),
        ("temp", STAGE_ONE_HEADS),
    ],
};

static LAVIS: Project = Project {
    vision_marker: "visual_encoder.",
    vision_prefix: "visual_encoder.",
    ln_vision: "ln_vision.",
    qformer: QFormerNames::Lavis,
    language_model: "opt_model.",
    dropped: &[
        ("Qformer.cls.", STAGE_ONE_HEADS),
        ("vision_proj.", STAGE_ONE_HEADS),
        ("text_proj.", STAGE_ONE_HEADS),
        ("itm_head.", STAGE_ONE_HEADS),
        ("temp", STAGE_ONE_HEADS),
    ],
};

static MMPRETRAIN: Project = Project {
    vision_marker: "vision_backbone.",
    vision_prefix: "vision_backbone.",
    ln_vision: "ln_vision_backbone.",
    qformer: QFormerNames::Mmpretrain,
    language_model: "text_backbone.",
    dropped: &[(
        "data_preprocessor.",
        "the mean and deviation of pixels, which the config holds",
    )],
};

impl Project {
    /// What `key` is, where the image encoder has the names `vision_names`.
    fn meaning(&self, vision_names: Names, key: &str) -> Meaning {
        if let Some(parameter) = key.strip_prefix(self.ln_vision) {
            return ln_vision(parameter);
        }
        if key.starts_with(self.vision_marker) {
            return vision(vision_names, &key[self.vision_prefix.len()..]);
        }
        if let Some(path) = self.qformer.locate(key) {
            return weight(Part::MultimodalBackbone, path);
        }
        if let Some(path) = self.qformer.locate_neck(key) {
            return weight(Part::VisionNeck, path);
        }
        if let Some(key) = key.strip_prefix(self.language_model) {
            return language_model(key);
        }
        if key.ends_with("position_ids") {
            return Meaning::Dropped(POSITION_IDS);
        }
        if self.qformer.locate_text(key).is_some() {
            return Meaning::Dropped(TEXT_SIDE);
        }
        self.dropped
            .iter()
            .find(|(name, _)| key == *name || name.ends_with('.') && key.starts_with(name))
            .map_or(Meaning::Unknown, |(_, reason)| Meaning::Dropped(reason))
    }
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
    if key.starts_with("heads.") {
        return Meaning::Dropped(STAGE_ONE_HEADS);
    }
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

pub(super) fn weight(part: Part, path: String) -> Meaning {
    Meaning::Weight(Address { part, path }, None)
}

pub(super) fn torch_norm(path: &str) -> &str {
    match path {
        "gamma" => "weight",
        "beta" => "bias",
        other => other,
    }
}
