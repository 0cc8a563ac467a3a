//! Takes the state out of Burn's learner.

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

/// A learner's state as bytes.
#[derive(Debug)]
pub struct Captured {
    /// Files by their names.
    pub(super) files: Vec<(&'static str, Vec<u8>)>,
}

impl Captured {
    /// Adds the averaged weights.
    ///
    /// # Errors
    ///
    /// If they can't be made bytes.
    pub fn with_average<M: Module>(mut self, average: M) -> Result<Self, RunError> {
        let bytes = average
            .into_record()
            .checkpoint_into_bytes()
            .map_err(|error| RunError::Training(format!("the average can't be read: {error}")))?;
        self.files.push((AVERAGE, bytes.to_vec()));
        Ok(self)
    }
}

/// Takes the state out of Burn's learner at any step.
///
/// The learner hands its optimizer to checkpointers only, and Burn's own write one file each, once
/// an epoch, without the data position. These checkpointers pass the records on in memory.
pub struct Capture<M: LearnerModel> {
    checkpointer: LearningCheckpointer<M>,
    model: Receiver<Result<Vec<u8>, String>>,
    optimizer: Receiver<Result<Vec<u8>, String>>,
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
    /// If a record can't be made bytes.
    pub fn take(
        &mut self,
        learner: &Learner<M>,
        step: usize,
        store: &EventStoreClient,
    ) -> Result<Captured, RunError> {
        self.checkpointer.checkpoint(learner, step, store);
        let receive = |receiver: &Receiver<Result<Vec<u8>, String>>| {
            receiver
                .recv()
                .unwrap_or_else(|_| Err("its thread ended".into()))
                .map_err(|reason| {
                    RunError::Training(format!("the state of step {step} can't be read: {reason}"))
                })
        };
        let files = vec![
            (MODEL, receive(&self.model)?),
            (OPTIMIZER, receive(&self.optimizer)?),
        ];
        Ok(Captured { files })
    }
}

struct Pass {
    sender: Mutex<Sender<Result<Vec<u8>, String>>>,
}

impl Pass {
    fn new(sender: Sender<Result<Vec<u8>, String>>) -> Self {
        Self {
            sender: Mutex::new(sender),
        }
    }
}

impl<R: Checkpoint> Checkpointer<R> for Pass {
    fn save(&self, _step: usize, record: R) -> Result<(), CheckpointerError> {
        let bytes = record
            .checkpoint_into_bytes()
            .map(|bytes| bytes.to_vec())
            .map_err(|error| error.to_string());
        if let Ok(sender) = self.sender.lock() {
            // Without a receiver nobody needs the record.
            let _ = sender.send(bytes);
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
