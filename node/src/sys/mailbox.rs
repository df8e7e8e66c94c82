//! The bounded queue in front of every task that owns state.
//! Owns the bound. Must never grow past it: a sender waits, or is told that it is full.

use tokio::sync::mpsc;

/// The sending side. Cheap to clone.
#[derive(Debug)]
pub struct Sender<T>(mpsc::Sender<T>);

/// The receiving side, owned by the task that works it off.
#[derive(Debug)]
pub struct Mailbox<T>(mpsc::Receiver<T>);

/// Why a letter was not taken. It comes back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError<T> {
    #[error("the mailbox is full")]
    Full(T),
    #[error("the mailbox is closed")]
    Closed(T),
}

/// A mailbox that holds `capacity` letters.
///
/// # Panics
/// When `capacity` is zero.
pub fn mailbox<T>(capacity: usize) -> (Sender<T>, Mailbox<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    (Sender(sender), Mailbox(receiver))
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Sender<T> {
    /// Waits for room. Cancel-safe: a dropped future has sent nothing.
    pub async fn send(&self, letter: T) -> Result<(), SendError<T>> {
        self.0
            .send(letter)
            .await
            .map_err(|error| SendError::Closed(error.0))
    }

    pub fn try_send(&self, letter: T) -> Result<(), SendError<T>> {
        self.0.try_send(letter).map_err(|error| match error {
            mpsc::error::TrySendError::Full(letter) => SendError::Full(letter),
            mpsc::error::TrySendError::Closed(letter) => SendError::Closed(letter),
        })
    }

    /// Completes when the receiving task is gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl<T> Mailbox<T> {
    /// The next letter, or `None` when no sender is left or the mailbox was closed and emptied. Cancel-safe.
    pub async fn recv(&mut self) -> Option<T> {
        self.0.recv().await
    }

    /// The next letter if it is there already.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }

    /// Refuses new letters; those already there can still be taken out.
    pub fn close(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_mailbox_says_so_and_a_closed_one_gives_the_letter_back() {
        let (sender, mut mailbox) = mailbox(1);
        sender.send(1).await.unwrap();
        assert_eq!(sender.try_send(2), Err(SendError::Full(2)));
        assert_eq!(mailbox.recv().await, Some(1));
        mailbox.close();
        assert_eq!(sender.send(3).await, Err(SendError::Closed(3)));
        assert_eq!(mailbox.recv().await, None);
    }
}
