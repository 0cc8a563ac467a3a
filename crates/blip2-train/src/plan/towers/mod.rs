//! The towers on a [`Tape`]: each function calls the operations that the module of its name calls.

use blip2::lora::Targets;
use blip2_kernels::Bits;

mod qformer;
mod text;
mod vision;

pub use qformer::{Image, ImageKeys};
pub use text::EMBEDDING;

use super::dry_run::{Matrix, Tape, Tensor};
use super::parameters::Parameters;
use super::work::{After, Part, Precision};

/// Low-rank adapters on layers of a tower.
#[derive(Debug, Clone)]
pub struct Adapters {
    /// The layers.
    pub targets: Targets,
    /// The rank.
    pub rank: usize,
}

/// How a tower is kept, and whether it learns.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// Whether its weights get gradients.
    pub learns: bool,
    /// Bits of a number of its matrices.
    pub bits: usize,
    /// Whether linear layers are kept in whole numbers, whatever `bits` says.
    pub rounded: Option<Bits>,
    /// Of its products.
    pub precision: Precision,
    /// LoRA.
    pub adapters: Option<Adapters>,
    /// Whether its blocks are run a second time for the backward pass.
    pub recompute: bool,
}

impl Keeping {
    /// All weights in f32, with gradients.
    pub fn trained() -> Self {
        Self {
            learns: true,
            bits: 32,
            rounded: None,
            precision: Precision::F32,
            adapters: None,
            recompute: false,
        }
    }

    /// All weights in f32, constant.
    pub fn frozen() -> Self {
        Self {
            learns: false,
            ..Self::trained()
        }
    }

    fn adapts(&self, name: &str) -> Option<usize> {
        let adapters = self.adapters.as_ref()?;
        // What can't be matched was refused before.
        let matches = adapters.targets.matcher().ok()?;
        matches(name).then_some(adapters.rank)
    }
}

/// A tower under way: a tape, whose weights are counted.
#[derive(Debug)]
pub struct Tower<'a> {
    /// What is done.
    pub tape: &'a mut Tape,
    /// What weights there are.
    pub parameters: &'a mut Parameters,
    /// The tower.
    pub part: Part,
    /// How it is kept.
    pub keeping: &'a Keeping,
}

impl Tower<'_> {
    fn begin(&mut self) {
        self.tape.part = self.part;
        self.tape.precision = self.keeping.precision;
    }

    /// A block of the tower, recomputed if the tower is.
    fn block(
        &mut self,
        x: Tensor,
        block: impl Fn(&mut Tower<'_>, Tensor) -> Tensor + 'static,
    ) -> Tensor {
        if !self.keeping.recompute {
            return block(self, x);
        }
        let (part, keeping) = (self.part, self.keeping.clone());
        let (parameters, input) = (&mut *self.parameters, Tape::detached(&x));
        let out = self.tape.unrecorded(|tape| {
            let keeping = &keeping;
            let mut tower = Tower {
                tape,
                parameters,
                part,
                keeping,
            };
            block(&mut tower, input)
        });
        let learns = keeping.learns || keeping.adapters.is_some();
        let again = move |tape: &mut Tape, x: Tensor| {
            let mut tower = Tower {
                tape,
                // They were counted the first time.
                parameters: &mut Parameters::default(),
                part,
                keeping: &keeping,
            };
            block(&mut tower, x)
        };
        self.tape.recomputed(x, out, learns, Box::new(again))
    }

    /// A linear layer by its name in transformers, with its bias unless `bare`.
    fn layer(&mut self, name: &str, x: Tensor, outputs: usize, bare: bool, after: After) -> Tensor {
        let (keeping, inputs) = (self.keeping, x.width);
        let bits = self
            .parameters
            .matrix(self.part, name, [inputs, outputs], keeping);
        if !bare {
            self.parameters
                .vector(self.part, &format!("{name}.bias"), outputs, keeping);
        }
        let matrix = Matrix {
            name: name.to_string(),
            inputs,
            outputs,
            bits,
            learns: keeping.learns,
        };
        let Some(rank) = keeping.adapts(name) else {
            return self.tape.linear(x, &matrix, after);
        };
        let factor = |part: &str, inputs, outputs| Matrix {
            name: format!("{name}.lora_{part}"),
            inputs,
            outputs,
            bits: 32,
            learns: true,
        };
        let (a, b) = (factor("A", inputs, rank), factor("B", rank, outputs));
        for factor in [&a, &b] {
            self.parameters
                .factor(self.part, &factor.name, factor.inputs * factor.outputs);
        }
        let precision = std::mem::replace(&mut self.tape.precision, Precision::F32);
        let down = self.tape.linear(x.clone(), &a, After::Nothing);
        let delta = self.tape.linear(down, &b, After::Nothing);
        self.tape.precision = precision;
        let base = self.tape.linear(x, &matrix, After::Bias);
        let sum = self.tape.add(base, delta);
        match after {
            After::Gelu | After::Relu => self.tape.activation(sum),
            After::Nothing | After::Bias => sum,
        }
    }

    fn linear(&mut self, name: &str, x: Tensor, outputs: usize) -> Tensor {
        self.layer(name, x, outputs, false, After::Bias)
    }

    fn norm(&mut self, name: &str, x: Tensor) -> Tensor {
        self.parameters
            .vector(self.part, name, 2 * x.width, self.keeping);
        self.tape.norm(x, name, self.keeping.learns)
    }

    fn rows(&mut self, name: &str, rows: usize, width: usize) -> Tensor {
        self.parameters
            .vector(self.part, name, rows * width, self.keeping);
        self.tape.parameter(name, rows, width, self.keeping.learns)
    }

    /// One norm or one linear layer that is a part of its own.
    pub fn ln_vision(&mut self, x: Tensor) -> Tensor {
        self.begin();
        self.norm("ln_vision", x)
    }

    /// A linear layer of a head.
    pub fn head_layer(&mut self, name: &str, x: Tensor, outputs: usize) -> Tensor {
        self.begin();
        self.linear(name, x, outputs)
    }

    /// What stands between hidden states and `words`: a layer, a norm; the words' biases.
    pub fn word_head(&mut self, x: Tensor, words: usize) -> Tensor {
        self.begin();
        let width = x.width;
        let hidden = self.layer("cls.dense", x, width, false, After::Gelu);
        self.parameters
            .vector(self.part, "cls.bias", words, self.keeping);
        self.norm("cls.layer_norm", hidden)
    }

    /// From the Q-Former's width to `outputs`.
    pub fn neck(&mut self, x: Tensor, outputs: usize) -> Tensor {
        self.begin();
        self.linear("language_projection", x, outputs)
    }
}
