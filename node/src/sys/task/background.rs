//! Threads for work that must be in nobody's way: as many as there are cores, of low priority, started when there is
//! first something for them to do.
//!
//! It owns those threads. Under load they get a tenth of what others get; on an idle machine they are as fast as any.

#![allow(clippy::disallowed_methods, reason = "the door itself")]

use std::num::NonZero;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// How far the threads stand back, from 0 (not at all) to 19. At 10 the scheduler weighs them 110 against 1024.
const NICE: i32 = 10;

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The threads of one tree of tasks. They end with it.
#[derive(Debug, Default)]
pub(super) struct Background {
    /// What waits is bounded by those who hand it over: each waits for its job before it has another.
    jobs: Mutex<Option<Sender<Job>>>,
}

impl Background {
    /// Has a job done. Gives it back when there is no thread to do it.
    pub(super) fn run(&self, job: Job) -> Result<(), Job> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.is_none() {
            *jobs = start();
        }
        match &*jobs {
            Some(jobs) => jobs.send(job).map_err(|unsent| unsent.0),
            None => Err(job),
        }
    }
}

/// Starts the threads; none if not a single one can be had.
fn start() -> Option<Sender<Job>> {
    let (sender, jobs) = channel();
    let jobs = Arc::new(Mutex::new(jobs));
    let count = thread::available_parallelism().map_or(1, NonZero::get);
    let started = (0..count).filter(|_| {
        let jobs = Arc::clone(&jobs);
        let thread = thread::Builder::new().name("background".to_owned());
        thread.spawn(move || work(&jobs)).is_ok()
    });
    (started.count() > 0).then_some(sender)
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    // On Linux this is the calling thread's alone. Where it is refused, the work is done all the same.
    let _ = rustix::process::setpriority_process(None, NICE);
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_on_threads_that_stand_back() {
        let background = Background::default();
        let (said, heard) = channel();
        for _ in 0..3 {
            let said = said.clone();
            let job = Box::new(move || {
                let nice = rustix::process::getpriority_process(None).expect("a thread has a priority");
                said.send(nice).expect("somebody listens");
            });
            assert!(background.run(job).is_ok());
        }
        let own = rustix::process::getpriority_process(None).expect("a thread has a priority");
        for _ in 0..3 {
            assert_eq!(heard.recv().expect("the job is done"), NICE.max(own));
        }
        assert_eq!(
            rustix::process::getpriority_process(None).expect("a thread has a priority"),
            own,
            "nobody else stands back"
        );
    }
}
