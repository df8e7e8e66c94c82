//! Ids for producers that nobody else has. The quorum gives them in blocks, so that most producers cost no change of the metadata.

use super::{Change, Controller, Outcome, ProducerIdBlock, ProposeError};
use headwater_protocol::ids::ProducerId;
use tokio::sync::Mutex;

/// What is left of the block that was given last. A block that is not used up is lost with the process: there are enough.
#[derive(Default)]
pub struct ProducerIds {
    block: Mutex<Option<ProducerIdBlock>>,
}

impl ProducerIds {
    /// An id that was never given before. If the future is dropped, a block may be lost.
    pub async fn next(&self, controller: &Controller) -> Result<ProducerId, ProposeError> {
        let mut block = self.block.lock().await;
        let ProducerIdBlock { first, count } = match *block {
            Some(block) if block.count > 0 => block,
            Some(_) | None => match controller.propose(Change::AllocateProducerIds).await?.outcome {
                Outcome::ProducerIds(new) => new,
                Outcome::Done
                | Outcome::Topic(_)
                | Outcome::Module(_)
                | Outcome::Node(_)
                | Outcome::Partition(_) => {
                    let reason = "the controller answered another question".to_owned();
                    return Err(ProposeError::Storage(reason));
                }
            },
        };
        *block = Some(ProducerIdBlock {
            first: ProducerId(first.value() + 1),
            count: count - 1,
        });
        Ok(first)
    }
}
