//! How fast replicas are copied that are not in sync: after what came, the next is asked for when time has paid (KIP-73),
//! and, of one that is far behind, when it has rested.
//!
//! Owns this node's accounts. Replicas in sync are never held up: writes wait for them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headwater_protocol::ids::NodeId;

use super::rest::Rest;
use crate::config::BrokerConfig;
use crate::metadata::View;
use crate::partition::Partition;
use crate::sys::clock::Clock;
use crate::sys::pace::Pace;

/// Between two looks at what is set: whoever takes a throttle away does not wait for long.
const LOOK: Duration = Duration::from_millis(100);

pub(super) struct Throttle {
    me: NodeId,
    broker: BrokerConfig,
    view: View,
    clock: Clock,
    pace: Mutex<Pace>,
    catch_up_percent: u32,
    rest: Mutex<Rest>,
}

impl Throttle {
    pub(super) fn new(
        me: NodeId,
        broker: BrokerConfig,
        view: View,
        clock: Clock,
        catch_up_percent: u32,
    ) -> Self {
        Self {
            me,
            broker,
            view,
            clock,
            pace: Mutex::new(Pace::default()),
            catch_up_percent,
            rest: Mutex::new(Rest::default()),
        }
    }

    /// Returns when the next may be asked for, after so many bytes of a partition. Cancel safe but for what was spent.
    pub(super) async fn pass(&self, partition: &Partition, bytes: u64) {
        if self.rate(partition).is_none() {
            return;
        }
        self.spend(bytes);
        while let Some(rate) = self.rate(partition) {
            if self.allowance(rate) > 0 {
                return;
            }
            self.clock.sleep(LOOK).await;
        }
    }

    /// Rests after a full answer that took so long. Cancel safe.
    pub(super) async fn rest(&self, partition: &Partition, took: Duration) {
        if partition.leadership().isr.contains(&self.me) {
            return;
        }
        let now = self.clock.now();
        let until = {
            let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
            rest.after(took, self.catch_up_percent, now)
        };
        if until > now {
            self.clock.sleep_until(until).await;
        }
    }

    /// Bytes per second; None: it is not throttled.
    fn rate(&self, partition: &Partition) -> Option<u64> {
        let is_named = partition
            .config()
            .follower_throttled
            .names(partition.name().index, self.me);
        if !is_named || partition.leadership().isr.contains(&self.me) {
            return None;
        }
        let image = self.view.image();
        self.broker
            .with_cluster(Arc::clone(&image.broker_configs))
            .follower_throttle()
    }

    fn spend(&self, bytes: u64) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.spend(bytes);
    }

    fn allowance(&self, rate: u64) -> u64 {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.allowance(rate, self.clock.now())
    }
}
