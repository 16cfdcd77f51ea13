//! A branch of this process that does one thing and answers once: what may hang is abandoned so, and what other
//! servers say is read by a process in a sandbox of its own.
//!
//! A worker needs no arguments, as it is a copy of who starts it: the job is a function, its answer a type.

use std::io::{self, Write};
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::system::process::{self, Ending, Equipment, Life, Running};
use crate::system::{Audience, Free};

/// The longest answer that is read, in bytes.
pub(crate) const LONGEST: usize = 1024 * 1024;

/// A worker at its job, whose answer is a `T`.
pub(crate) struct Worker<T> {
    running: Running,
    life: Life,
    deadline: Instant,
    answer: PhantomData<T>,
}

/// Why a worker has not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// It could not be started.
    #[error("could not be started: {0}")]
    NotStarted(String),
    /// It took too long, and was left behind.
    #[error("did not answer in time")]
    Late,
    /// It ended without an answer that makes sense.
    #[error("{0}")]
    Broken(String),
}

impl<T: Serialize + DeserializeOwned> Worker<T> {
    /// Starts a worker, which has so much time.
    ///
    /// # Errors
    /// [`NoAnswer::NotStarted`].
    pub(crate) fn begin(free: &Free, patience: Duration, job: impl FnOnce(Free) -> T) -> Result<Worker<T>, NoAnswer> {
        Worker::begin_with(free, None, patience, job)
    }

    /// The same, with this for its standard input.
    ///
    /// # Errors
    /// [`NoAnswer::NotStarted`].
    pub(crate) fn begin_with(
        free: &Free,
        input: Option<OwnedFd>,
        patience: Duration,
        job: impl FnOnce(Free) -> T,
    ) -> Result<Worker<T>, NoAnswer> {
        Worker::with_life(free, input, Life::Bound, patience, job)
    }

    /// The same, but it goes on when this process ends, or waits no longer: what it does is to be done once.
    ///
    /// # Errors
    /// [`NoAnswer::NotStarted`].
    pub(crate) fn begin_lasting(
        free: &Free,
        input: Option<OwnedFd>,
        patience: Duration,
        job: impl FnOnce(Free) -> T,
    ) -> Result<Worker<T>, NoAnswer> {
        Worker::with_life(free, input, Life::Free, patience, job)
    }

    fn with_life(
        free: &Free,
        input: Option<OwnedFd>,
        life: Life,
        patience: Duration,
        job: impl FnOnce(Free) -> T,
    ) -> Result<Worker<T>, NoAnswer> {
        let equipment = Equipment { input, kept: &[], life };
        let running = process::branch(free, equipment, |free| answer(&job(free)));
        let running = running.map_err(|error| NoAnswer::NotStarted(error.to_string()))?;
        Ok(Worker { running, life, deadline: Instant::now() + patience, answer: PhantomData })
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub(crate) fn answer(self) -> Result<T, NoAnswer> {
        self.answer_for(Audience::default())
    }

    /// The same, as long as somebody is there.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub(crate) fn answer_for(self, audience: Audience<'_>) -> Result<T, NoAnswer> {
        if self.life == Life::Free {
            let output = self.running.collect_or_leave(LONGEST, self.deadline).ok_or(NoAnswer::Late)?;
            return serde_json::from_slice(&output).map_err(|_| NoAnswer::Broken("answered nonsense".into()));
        }
        let (exit, output) = self.running.collect_up_to(LONGEST, audience.until(self.deadline));
        match serde_json::from_slice(&output) {
            Ok(answer) if exit.success() => Ok(answer),
            _ if matches!(exit.ending, Ending::Deadline | Ending::OutOfReach) => Err(NoAnswer::Late),
            _ if exit.success() => Err(NoAnswer::Broken("answered nonsense".into())),
            _ => Err(NoAnswer::Broken(exit.describe())),
        }
    }
}

/// Answers, on standard output.
pub(crate) fn answer(answer: &impl Serialize) {
    let answer = serde_json::to_vec(answer).unwrap_or_default();
    let mut out = io::stdout();
    // Nobody may be left to read it.
    let _ = out.write_all(&answer).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn work<T: Serialize + DeserializeOwned>(patience: Duration, job: fn(Free) -> T) -> Result<T, NoAnswer> {
        Worker::begin(&Free::of_main(), patience, job).unwrap().answer()
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn a_worker_answers_or_it_is_known_why_not() {
        assert_eq!(work(SOON, |_| vec![1, 2, 3]), Ok(vec![1, 2, 3]));
        let late = work(Duration::from_millis(50), |_| thread::sleep(Duration::from_secs(987)));
        assert_eq!(late, Err(NoAnswer::Late));
        let lasting = |patience, job: fn(Free) -> u8| {
            Worker::begin_lasting(&Free::of_main(), None, patience, job).and_then(Worker::answer)
        };
        assert_eq!(lasting(SOON, |_| 7), Ok(7));
        assert_eq!(
            lasting(Duration::from_millis(50), |_| {
                thread::sleep(Duration::from_secs(1));
                7
            }),
            Err(NoAnswer::Late)
        );
        let broken = work(SOON, |_| -> u8 { std::panic::resume_unwind(Box::new(())) });
        assert_eq!(broken, Err(NoAnswer::Broken("ended with status 101".into())));
    }
}
