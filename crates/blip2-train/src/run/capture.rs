//! Takes the state out of Burn's learner.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use burn::module::Module;
use burn::optim::OptimizerRecord;
use burn::optim::lr_scheduler::LrSchedulerRecord;
use burn::store::ModuleRecord;
use burn_train::checkpoint::{
    AsyncCheckpointer, Checkpoint, Checkpointer, CheckpointerError, CheckpointingAction,
    CheckpointingStrategy,
};
use burn_train::metric::store::EventStoreClient;
use burn_train::{Interrupter, Learner, LearnerModel, LearningCheckpointer};

use super::checkpoint::{AVERAGE, MODEL, OPTIMIZER};
use crate::RunError;

/// A copy of a learner's state.
#[derive(Debug)]
pub struct Captured {
    /// What is to be written, by the names of files.
    pub(super) files: Vec<(&'static str, Record)>,
}

/// A part of it. Written from where it lies: its bytes are not put together in memory first.
#[derive(Debug)]
pub(super) enum Record {
    Weights(ModuleRecord),
    Optimizer(OptimizerRecord),
}

impl Record {
    /// Writes it to a file and frees its memory.
    pub fn save(self, path: PathBuf) -> Result<(), CheckpointerError> {
        match self {
            Self::Weights(record) => Checkpoint::save(record, path),
            Self::Optimizer(record) => Checkpoint::save(record, path),
        }
    }
}

impl Captured {
    /// Adds the averaged weights.
    pub fn with_average<M: Module>(mut self, average: M) -> Self {
        let record = Record::Weights(average.into_record());
        self.files.push((AVERAGE, record));
        self
    }
}

/// Takes the state out of Burn's learner at any step.
///
/// The learner hands its optimizer to checkpointers only, and Burn's own write one file each, once
/// an epoch, without the data position. These checkpointers pass the records on in memory.
pub struct Capture<M: LearnerModel> {
    checkpointer: LearningCheckpointer<M>,
    model: Receiver<ModuleRecord>,
    optimizer: Receiver<OptimizerRecord>,
}

impl<M: LearnerModel> Capture<M> {
    /// Errors of the checkpointer's threads go to `interrupter`.
    pub fn new(interrupter: &Interrupter) -> Self {
        let (model_sender, model) = channel();
        let (optimizer_sender, optimizer) = channel();
        let checkpointer = LearningCheckpointer::new(
            AsyncCheckpointer::<ModuleRecord>::new(Pass::new(model_sender))
                .with_interrupter(interrupter.clone()),
            AsyncCheckpointer::<OptimizerRecord>::new(Pass::new(optimizer_sender))
                .with_interrupter(interrupter.clone()),
            // The schedule is a function of the step; nobody reads this channel.
            AsyncCheckpointer::<LrSchedulerRecord>::new(Pass::new(channel().0)),
            Box::new(Always),
        );
        Self {
            checkpointer,
            model,
            optimizer,
        }
    }

    /// The learner's state after `step`.
    ///
    /// # Errors
    ///
    /// If a thread that hands a record on has ended.
    pub fn take(
        &mut self,
        learner: &Learner<M>,
        step: usize,
        store: &EventStoreClient,
    ) -> Result<Captured, RunError> {
        self.checkpointer.checkpoint(learner, step, store);
        let lost = |_| {
            let reason = format!("the state of step {step} can't be read: its thread ended");
            RunError::Training(reason)
        };
        let model = Record::Weights(self.model.recv().map_err(lost)?);
        let optimizer = Record::Optimizer(self.optimizer.recv().map_err(lost)?);
        Ok(Captured {
            files: vec![(MODEL, model), (OPTIMIZER, optimizer)],
        })
    }
}

struct Pass<R> {
    sender: Mutex<Sender<R>>,
}

impl<R> Pass<R> {
    fn new(sender: Sender<R>) -> Self {
        Self {
            sender: Mutex::new(sender),
        }
    }
}

impl<R: Checkpoint> Checkpointer<R> for Pass<R> {
    fn save(&self, _step: usize, record: R) -> Result<(), CheckpointerError> {
        if let Ok(sender) = self.sender.lock() {
            // Without a receiver nobody needs the record.
            let _ = sender.send(record);
        }
        Ok(())
    }

    fn delete(&self, _step: usize) -> Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, step: usize) -> Result<R, CheckpointerError> {
        Err(CheckpointerError::Unknown(format!(
            "step {step} is restored from the run folder"
        )))
    }
}

struct Always;

impl CheckpointingStrategy for Always {
    fn checkpointing(
        &mut self,
        _step: usize,
        _store: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        vec![CheckpointingAction::Save]
    }
}
