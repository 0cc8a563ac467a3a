//! A language model on captions alone.

use blip2::TextBatch;
use blip2_data::DataError;
use blip2_data::loader::BatchSource;
use blip2_data::tokenizer::CaptionTokenizer;
use blip2_lm::{CausalLm, Opt};
use burn::module::Module;
use burn::tensor::Device;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Task, TaskError, TaskLoss, impl_steps};

/// Next-token prediction over documents of captions.
#[derive(Module, Debug)]
pub struct LanguageTask {
    /// The language model.
    pub model: Opt,
}

/// Documents of captions.
#[derive(Debug, Clone)]
pub struct DocumentBatch {
    text: TextBatch,
    device: Device,
}

impl Task for LanguageTask {
    type Batch = DocumentBatch;

    const SCORE: &'static str = "accuracy";

    fn batch_len(batch: &DocumentBatch) -> usize {
        batch.text.batch
    }

    fn task_loss(&self, batch: DocumentBatch) -> Result<TaskLoss, TaskError> {
        let (input_ids, attention_mask) = batch.text.to_tensors(&batch.device);
        let inputs_embeds = self.model.embed(input_ids);
        let hidden = self.model.forward(inputs_embeds, attention_mask, None);
        let targets = batch.text.targets(0);
        let count = targets.ids.len();
        let hidden = targets.select(hidden);
        // Only validation asks for the accuracy, and it needs all logits.
        let accuracy = (!hidden.is_autodiff()).then(|| {
            let logits = self.model.logits(hidden.clone().unsqueeze::<3>());
            let predicted: Vec<i64> = logits.argmax(2).into_data().iter::<i64>().collect();
            let correct = predicted.iter().zip(&targets.ids).filter(|(a, b)| a == b);
            correct.count() as f64 / count.max(1) as f64
        });
        Ok(TaskLoss {
            parts: Vec::new(),
            loss: self.model.cross_entropy(hidden, &targets.ids),
            accuracy,
            count,
        })
    }
}

impl_steps!(LanguageTask);

/// One document an image: its captions in an order drawn by (seed, epoch, image), each with BOS
/// before and a line break after it.
#[derive(Debug)]
pub struct DocumentSource {
    captions: Vec<Vec<Vec<u32>>>,
    bos_id: u32,
    pad_id: u32,
    max_length: usize,
    seed: u64,
}

impl DocumentSource {
    /// Tokenises the captions of each image.
    ///
    /// # Errors
    ///
    /// If a caption can't be tokenised.
    pub fn new(
        images: &[Vec<String>],
        tokenizer: &CaptionTokenizer,
        max_length: usize,
        seed: u64,
    ) -> Result<Self, DataError> {
        let captions = images
            .iter()
            .map(|captions| {
                captions
                    .iter()
                    .map(|caption| tokenizer.encode(&format!("{}\n", caption.trim())))
                    .collect()
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            captions,
            bos_id: tokenizer.bos_id(),
            pad_id: tokenizer.pad_id(),
            max_length,
            seed,
        })
    }
}

impl BatchSource for DocumentSource {
    type Batch = DocumentBatch;

    fn num_items(&self) -> usize {
        self.captions.len()
    }

    fn batch(
        &self,
        epoch: usize,
        items: &[usize],
        device: &Device,
    ) -> Result<DocumentBatch, DataError> {
        let rows: Vec<(Vec<u32>, usize)> = items
            .iter()
            .map(|&item| {
                let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ epoch as u64);
                rng.set_stream(item as u64);
                let mut captions: Vec<&Vec<u32>> = self.captions[item].iter().collect();
                captions.shuffle(&mut rng);
                let mut ids = Vec::new();
                for caption in captions {
                    ids.push(self.bos_id);
                    ids.extend(caption);
                }
                ids.truncate(self.max_length);
                (ids, 1)
            })
            .collect();
        Ok(DocumentBatch {
            text: TextBatch::new(&rows, self.pad_id),
            device: device.clone(),
        })
    }
}
