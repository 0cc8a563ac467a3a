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

/// `Blip2ForConditionalGeneration`, and with text `Blip2ForImageTextRetrieval`.
pub(super) const HUGGING_FACE: Table = Table {
    queries: &[
        rule("query_tokens", "query_tokens", QUERIES),
        rule("layer_norm.", "qformer.layernorm.", NORM),
    ],
    text: &[rule("text_embeddings.", "embeddings.", TEXT_EMBEDDINGS)],
    layers: rule("layers.", "qformer.encoder.layer.", ENCODER),
    attention: &ATTENTION,
    neck: rule("projection.", "language_projection.", NECK),
};

const ATTENTION: [KeyRule; 10] = [
    rule(
        "attention.query.",
        "attention.attention.query.",
        PROJECTIONS,
    ),
    rule("attention.key.", "attention.attention.key.", PROJECTIONS),
    rule(
        "attention.value.",
        "attention.attention.value.",
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
        "crossattention.attention.query.",
        PROJECTIONS,
    ),
    rule(
        "crossattention.key.",
        "crossattention.attention.key.",
        PROJECTIONS,
    ),
    rule(
        "crossattention.value.",
        "crossattention.attention.value.",
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
];

/// BERT's embeddings hold the norm there, which the queries pass too.
const EMBEDDINGS_NORM: &str = "the norm stands in BERT's embeddings, which the queries pass too";

/// A `BertLMHeadModel` called `Qformer`.
pub(super) const LAVIS: Table = Table {
    queries: &[
        rule("query_tokens", "query_tokens", QUERIES),
        rule(
            "layer_norm.",
            "Qformer.bert.embeddings.LayerNorm.",
            EMBEDDINGS_NORM,
        ),
    ],
    // Both by their whole names: the norm stands beside them.
    text: &[
        rule(
            "text_embeddings.word_embeddings.",
            "Qformer.bert.embeddings.word_embeddings.",
            TEXT_EMBEDDINGS,
        ),
        rule(
            "text_embeddings.position_embeddings.",
            "Qformer.bert.embeddings.position_embeddings.",
            TEXT_EMBEDDINGS,
        ),
    ],
    layers: rule("layers.", "Qformer.bert.encoder.layer.", ENCODER),
    attention: &BERT_ATTENTION,
    // The name in the models with OPT; the first stage has no neck.
    neck: rule("projection.", "opt_proj.", NECK),
};

/// BERT's own names, which LAVIS and mmpretrain kept: Hugging Face's BLIP-2 renamed `self`.
const BERT_ATTENTION: [KeyRule; 10] = [
    rule("attention.query.", "attention.self.query.", PROJECTIONS),
    rule("attention.key.", "attention.self.key.", PROJECTIONS),
    rule("attention.value.", "attention.self.value.", PROJECTIONS),
    rule("attention.output.dense.", "attention.output.dense.", SAME),
    rule(
        "attention.output.layer_norm.",
        "attention.output.LayerNorm.",
        NORM,
    ),
    rule(
        "crossattention.query.",
        "crossattention.self.query.",
        PROJECTIONS,
    ),
    rule(
        "crossattention.key.",
        "crossattention.self.key.",
        PROJECTIONS,
    ),
    rule(
        "crossattention.value.",
        "crossattention.self.value.",
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
];

/// LAVIS's names below `bert`, for mmpretrain's `Qformer` comes from there.
pub(super) const MMPRETRAIN: Table = Table {
    queries: &[
        rule("query_tokens", "query_tokens", QUERIES),
        rule(
            "layer_norm.",
            "multimodal_backbone.bert.embeddings.LayerNorm.",
            EMBEDDINGS_NORM,
        ),
    ],
    text: &[
        rule(
            "text_embeddings.word_embeddings.",
            "multimodal_backbone.bert.embeddings.word_embeddings.",
            TEXT_EMBEDDINGS,
        ),
        rule(
            "text_embeddings.position_embeddings.",
            "multimodal_backbone.bert.embeddings.position_embeddings.",
            TEXT_EMBEDDINGS,
        ),
    ],
    layers: rule(
        "layers.",
        "multimodal_backbone.bert.encoder.layer.",
        ENCODER,
    ),
    attention: &BERT_ATTENTION,
    neck: rule(
        "projection.",
        "vision_neck.fc.",
        "the neck is a linear classification head there",
    ),
};
