//! Waiting: for a future within a deadline, and for a condition that nothing announces.
//!
//! This is the one place of the project where something is polled.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

/// Between the first looks; doubled each time up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(2);
const PAUSE_LAST: Duration = Duration::from_millis(200);

/// Awaits a future for so long at most; the error names what was awaited.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(limit, future)
        .await
        .with_context(|| format!("{what}: not within {limit:?}"))
}

/// Looks again and again until `look` answers with a value, for so long at most.
pub async fn until<T, F>(limit: Duration, what: &str, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let deadline = Instant::now() + limit;
    let mut pause = PAUSE_FIRST;
    loop {
        let seen = match tokio::time::timeout_at(deadline, look()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => "not yet".to_owned(),
            Ok(Err(why)) => format!("{why:#}"),
            Err(_) => "the look itself did not end".to_owned(),
        };
        if Instant::now() + pause >= deadline {
            bail!("{what}: not within {limit:?}; the last look: {seen}");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_LAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn until_looks_again_and_says_what_it_saw_last() {
        let mut looks = 0;
        let value = until(Duration::from_secs(1), "third time", || {
            looks += 1;
            let now = looks;
            async move { Ok((now == 3).then_some(now)) }
        });
        assert_eq!(value.await.expect("in time"), 3);
        let never = until::<(), _>(Duration::from_secs(1), "never", || async {
            bail!("still closed")
        });
        let why = never.await.expect_err("never").to_string();
        assert!(why.contains("never") && why.contains("still closed"), "{why}");
    }
}
