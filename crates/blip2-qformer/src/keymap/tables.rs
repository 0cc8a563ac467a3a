//! The tables of names, a line for each that differs.

/// One line of a key map: a name starts with `ours` if and only if it starts with `theirs` there.
#[derive(Clone, Copy)]
pub(super) struct KeyRule {
    /// How the name starts here.
    pub ours: &'static str,
    /// How it starts there.
    pub theirs: &'static str,
}

/// The third argument says in words why the names differ.
const fn rule(ours: &'static str, theirs: &'static str, _reason: &'static str) -> KeyRule {
    KeyRule { ours, theirs }
}

const SAME: &str = "the same";
const QUERIES: &str = "the queries belong to the whole model there";
const NORM: &str = "one spelling for all norms here";
const PROJECTIONS: &str = "query, key and value are a module of their own inside BERT's attention";
const ACTIVATION: &str =
    "our layer applies the activation, so the module is the linear layer alone";
const ENCODER: &str = "our layers are not inside an `encoder`";
const TEXT_EMBEDDINGS: &str = "the vision model has embeddings too";
const NECK: &str = "the module is the neck, which the assembled model names";

/// Feed-forward of the queries, which all codebases name alike.
pub(super) const QUERY_FEED_FORWARD: [KeyRule; 3] = [
    rule(
        "intermediate_query.",
        "intermediate_query.dense.",
        ACTIVATION,
    ),
    rule("output_query.dense.", "output_query.dense.", SAME),
    rule("output_query.layer_norm.", "output_query.LayerNorm.", NORM),
];

/// Feed-forward of the text, likewise.
pub(super) const TEXT_FEED_FORWARD: [KeyRule; 3] = [
    rule("intermediate.", "intermediate.dense.", ACTIVATION),
    rule("output.dense.", "output.dense.", SAME),
    rule("output.layer_norm.", "output.LayerNorm.", NORM),
];

/// How one codebase names a Q-Former and its neck.
pub(super) struct Table {
    /// The query side outside the layers.
    pub queries: &'static [KeyRule],
    /// The text side outside the layers.
    pub text: &'static [KeyRule],
    /// Where layer N stands.
    pub layers: KeyRule,
    /// Attention, inside a layer; shared by queries and text but for the cross-attention.
    pub attention: &'static [KeyRule],
    pub neck: KeyRule,
}

/// The rules of attention, whose projections lie in a module that each codebase names.
macro_rules! attention {
    ($module:literal) => {
        &[
            rule(
                "attention.query.",
                concat!("attention.", $module, ".query."),
                PROJECTIONS,
            ),
            rule(
                "attention.key.",
                concat!("attention.", $module, ".key."),
                PROJECTIONS,
            ),
            rule(
                "attention.value.",
                concat!("attention.", $module, ".value."),
                PROJECTIONS,
            ),
            rule("attention.output.dense.", "attention.output.dense.", SAME),
            rule(
                "attention.output.layer_norm.",
                "attention.output.LayerNorm.",
                NORM,
            ),
            rule(
                "crossattention.query.",
                concat!("crossattention.", $module, ".query."),
                PROJECTIONS,
            ),
            rule(
                "crossattention.key.",
                concat!("crossattention.", $module, ".key."),
                PROJECTIONS,
            ),
            rule(
                "crossattention.value.",
                concat!("crossattention.", $module, ".value."),
                PROJECTIONS,
            ),
            rule(
                "crossattention.output.dense.",
                "crossattention.output.dense.",
                SAME,
            ),
            rule(
                "crossattention.output.layer_norm.",
                "crossattention.output.LayerNorm.",
                NORM,
            ),
        ]
    };
}

/// BERT's own names, which LAVIS and mmpretrain kept, in a module of another name.
macro_rules! bert {
    ($module:literal, $neck:expr) => {
        Table {
            queries: &[
                rule("query_tokens", "query_tokens", QUERIES),
                rule(
                    "layer_norm.",
                    concat!($module, ".bert.embeddings.LayerNorm."),
                    EMBEDDINGS_NORM,
                ),
            ],
            // Both by their whole names: the norm stands beside them.
            text: &[
                rule(
                    "text_embeddings.word_embeddings.",
                    concat!($module, ".bert.embeddings.word_embeddings."),
                    TEXT_EMBEDDINGS,
                ),
                rule(
                    "text_embeddings.position_embeddings.",
                    concat!($module, ".bert.embeddings.position_embeddings."),
                    TEXT_EMBEDDINGS,
                ),
            ],
            layers: rule("layers.", concat!($module, ".bert.encoder.layer."), ENCODER),
            attention: attention!("self"),
            neck: $neck,
        }
    };
}

/// `Blip2ForConditionalGeneration`, and with text `Blip2ForImageTextRetrieval`.
pub(super) static HUGGING_FACE: Table = Table {
    queries: &[
        rule("query_tokens", "query_tokens", QUERIES),
        rule("layer_norm.", "qformer.layernorm.", NORM),
    ],
    text: &[rule("text_embeddings.", "embeddings.", TEXT_EMBEDDINGS)],
    layers: rule("layers.", "qformer.encoder.layer.", ENCODER),
    // `self` in BERT.
    attention: attention!("attention"),
    neck: rule("projection.", "language_projection.", NECK),
};

/// BERT's embeddings hold the norm there, which the queries pass too.
const EMBEDDINGS_NORM: &str = "the norm stands in BERT's embeddings, which the queries pass too";

/// A `BertLMHeadModel`. The neck has its name in the models with OPT; the first stage has none.
pub(super) static LAVIS: Table = bert!("Qformer", rule("projection.", "opt_proj.", NECK));

/// LAVIS's `Qformer` under another name.
pub(super) static MMPRETRAIN: Table = bert!(
    "multimodal_backbone",
    rule(
        "projection.",
        "vision_neck.fc.",
        "the neck is a linear classification head there",
    )
);
